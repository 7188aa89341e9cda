//! The reports on clients, as files.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::app::cases::results::{self, Cases};
use crate::lock::lock;

/// The directory for reports.
pub struct Reports {
    directory: PathBuf,
    /// The number of files begun, so that each has its own temporary name.
    begun: AtomicU64,
    /// Held while the index is written, so that an older index never replaces a newer one.
    index: Mutex<()>,
}

impl Reports {
    /// Creates the directory unless it exists, and checks that a file can be created in it.
    ///
    /// # Errors
    ///
    /// Why it can't be written.
    pub fn open(directory: PathBuf) -> Result<Self, String> {
        let reports = Reports { directory, begun: AtomicU64::new(0), index: Mutex::new(()) };
        let probe = reports.directory.join(".wsecho");
        fs::create_dir_all(&reports.directory)
            .and_then(|()| fs::write(&probe, ""))
            .and_then(|()| fs::remove_file(&probe))
            .map_err(|error| reports.complaint(&error))?;
        Ok(reports)
    }

    /// Writes the reports on an agent, and then the index of all agents.
    ///
    /// # Errors
    ///
    /// Why a file can't be written.
    pub fn write(&self, cases: &Cases, agent: &str) -> Result<(), String> {
        self.try_write(cases, agent).map_err(|error| self.complaint(&error))
    }

    fn try_write(&self, cases: &Cases, agent: &str) -> io::Result<()> {
        for (name, contents) in cases.files(agent) {
            self.replace(&name, &contents)?;
        }
        let _index = lock(&self.index);
        self.replace("index.json", &results::index(&cases.results.reports()))
    }

    /// Writes a file under a temporary name first, so that nobody reads half of it.
    fn replace(&self, name: &str, contents: &str) -> io::Result<()> {
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        let temporary = self.directory.join(format!(".{number}.tmp"));
        fs::write(&temporary, contents)
            .and_then(|()| fs::rename(&temporary, self.directory.join(name)))
            .inspect_err(|_| {
                // The file may not exist.
                let _ = fs::remove_file(&temporary);
            })
    }

    fn complaint(&self, error: &io::Error) -> String {
        format!("cannot write --reports {}: {error}", self.directory.display())
    }
}
