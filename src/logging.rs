//! The destination of the log, and the format of a line.
//!
//! One thread writes the log. All others only add lines to a bounded queue, so that a stalled reader of
//! the log, such as a terminal after Ctrl-S, delays neither a client nor the stop.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};
use std::{env, mem, panic, thread};

use env_logger::{Builder, Target, WriteStyle};
use log::LevelFilter;
use rustix::fs::OFlags;
use rustix::io::{Errno, ioctl_fionbio};
use signal_hook::consts::SIGXFSZ;
use signal_hook::flag;

use crate::cli::Logging;
use crate::lock::{lock, unpoisoned};
use crate::quantity::Count;

/// The maximum size of the queue, in bytes. A line that does not fit is lost.
const QUEUE_SIZE: usize = 256 * 1024;

/// Sends the log to the file or to stderr, one line per event. A panic is an event like any other.
///
/// # Errors
///
/// The file can't be written, or the thread can't be started.
pub fn start(config: &Logging) -> Result<Log, String> {
    let path = config.log_file.as_deref().unwrap_or(Path::new("-"));
    let complaint = format!("cannot write --log-file {}", path.display());
    // By default, a write beyond the file size limit (`ulimit -f`) ends the process. With a no-op handler it
    // is an error, as on a full disk.
    flag::register(SIGXFSZ, Arc::default())
        .map_err(|error| format!("cannot handle SIGXFSZ: {error}"))?;
    let file = open(path).map_err(|error| format!("{complaint}: {error}"))?;
    let is_colored = file.is_terminal() && is_color_wanted();
    let queue = Arc::new(Queue::default());
    let writer = Arc::clone(&queue);
    let write = move || {
        writer.write_to(file, |error| {
            // stderr is the last place to report it. If that fails, too, nothing can be done.
            let _ = writeln!(io::stderr(), "wsecho: {complaint}: {error}; its lines are lost");
        });
    };
    thread::Builder::new()
        .name("log".into())
        .spawn(write)
        .map_err(|error| format!("cannot start the log's thread: {error}"))?;

    let mut log = Builder::new();
    log.write_style(if is_colored { WriteStyle::Always } else { WriteStyle::Never });
    log.format_timestamp_millis().format_target(false);
    match config.level() {
        Some(level) => log.filter_level(level),
        None => log.filter_level(LevelFilter::Info).parse_filters(&rust_log()),
    };
    log.target(Target::Pipe(Box::new(Lines(Arc::clone(&queue))))).init();
    panic::set_hook(Box::new(|info| {
        let thread = thread::current();
        let message = info.to_string().replace('\n', " ");
        log::error!("{} {message}", thread.name().unwrap_or("a thread"));
    }));
    Ok(Log(queue))
}

/// Whether the environment allows colors on a terminal (no-color.org).
fn is_color_wanted() -> bool {
    let value = |name| env::var_os(name).filter(|value| !value.is_empty());
    value("NO_COLOR").is_none() && value("TERM").is_some_and(|term| term != "dumb")
}

/// The levels that `RUST_LOG` asks for. It may come from a file with Windows line endings.
fn rust_log() -> String {
    env::var("RUST_LOG").unwrap_or_default().trim_end_matches('\r').into()
}

/// Opens the file that the log is appended to, so that logrotate's copytruncate leaves no hole.
fn open(path: &Path) -> io::Result<File> {
    // Opening these by name fails if they are sockets, or another user's pipes.
    match path.to_str() {
        Some("-" | "/dev/stderr" | "/dev/fd/2" | "/proc/self/fd/2") => {
            return Ok(io::stderr().as_fd().try_clone_to_owned()?.into());
        }
        Some("/dev/stdout" | "/dev/fd/1" | "/proc/self/fd/1") => {
            return Ok(io::stdout().as_fd().try_clone_to_owned()?.into());
        }
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o640);
    // Opening a FIFO without a reader would block, and the server would never listen.
    options.custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = options.open(path).map_err(|error| {
        let is_fifo = || path.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo());
        match Errno::from_io_error(&error) {
            Some(Errno::NXIO) if is_fifo() => {
                io::Error::other("no process reads this FIFO; start its reader first")
            }
            _ => error,
        }
    })?;
    ioctl_fionbio(&file, false)?;
    Ok(file)
}

/// The log. Dropping it writes the queued lines, unless that takes too long.
pub struct Log(Arc<Queue>);

impl Drop for Log {
    fn drop(&mut self) {
        const LONGEST: Duration = Duration::from_secs(1);
        let is_unwritten = |lines: &mut Queued| lines.is_writing || !lines.bytes.is_empty();
        let _ = self.0.written.wait_timeout_while(self.0.lock(), LONGEST, is_unwritten);
    }
}

/// Lines that wait to be written.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Queued>,
    filled: Condvar,
    written: Condvar,
}

#[derive(Default)]
struct Queued {
    bytes: Vec<u8>,
    /// The number of lines that did not fit or could not be written.
    lost: usize,
    is_writing: bool,
}

impl Queue {
    fn push(&self, lines: &[u8]) {
        let mut waiting = self.lock();
        if waiting.bytes.len() + lines.len() > QUEUE_SIZE {
            waiting.lost += count_lines(lines);
            return;
        }
        waiting.bytes.extend_from_slice(lines);
        // A writer that is busy checks the queue when it has finished.
        if !waiting.is_writing {
            self.filled.notify_one();
        }
    }

    /// Writes the queued lines, always all at once, for as long as the process lives. Calls `report`
    /// each time writing begins to fail.
    fn write_to(&self, mut sink: impl Write, report: impl Fn(&io::Error)) {
        let mut lines = Vec::new();
        let mut is_failing = false;
        let mut is_inside_line = false;
        loop {
            let lost = self.take(&mut lines);
            if lost > 0 {
                let time = humantime::format_rfc3339_millis(SystemTime::now());
                let lost = Count(lost as u64, "line");
                lines.extend_from_slice(format!("[{time} WARN ] {lost} lost\n").as_bytes());
            }
            if is_inside_line {
                // The rest of the last line was lost.
                is_inside_line = write(&mut sink, b"\n").1.is_some();
            }
            let (unwritten, error) = write(&mut sink, &lines);
            if let Some(&last) = lines[..lines.len() - unwritten.len()].last() {
                is_inside_line = last != b'\n';
            }
            let was_failing = mem::replace(&mut is_failing, error.is_some());
            if let Some(error) = error {
                // The line that reports lost lines is not counted as lost itself, but the lines that it
                // reports are.
                self.lock().lost += count_lines(unwritten) + lost - usize::from(lost > 0);
                if !was_failing {
                    report(&error);
                }
            }
            lines.clear();
        }
    }

    /// Waits for lines, and moves them to `lines`. Returns the number of lines that were lost before.
    fn take(&self, lines: &mut Vec<u8>) -> usize {
        let mut waiting = self.lock();
        while waiting.bytes.is_empty() {
            waiting.is_writing = false;
            self.written.notify_all();
            waiting = unpoisoned(self.filled.wait(waiting));
        }
        waiting.is_writing = true;
        mem::swap(lines, &mut waiting.bytes);
        mem::take(&mut waiting.lost)
    }

    fn lock(&self) -> MutexGuard<'_, Queued> {
        lock(&self.waiting)
    }
}

/// Writes `bytes`. Returns the unwritten rest, and the error.
fn write<'b>(sink: &mut impl Write, mut bytes: &'b [u8]) -> (&'b [u8], Option<io::Error>) {
    /// The pause when a terminal or a pipe is full and another process has made it non-blocking.
    const PAUSE: Duration = Duration::from_millis(10);
    while !bytes.is_empty() {
        match sink.write(bytes) {
            Ok(0) => return (bytes, Some(io::ErrorKind::WriteZero.into())),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(error) => return (bytes, Some(error)),
        }
    }
    (bytes, None)
}

fn count_lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte == b'\n').count()
}

/// The writer that the logger uses. It adds whole lines to the queue.
struct Lines(Arc<Queue>);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_queue_are_counted_and_reported_once_there_is_room() {
        let queue = Arc::new(Queue::default());
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        for _ in 0..QUEUE_SIZE / line.len() + 5 {
            queue.push(&line);
        }
        let (reader, sink) = io::pipe().unwrap();
        let writer = Arc::clone(&queue);
        thread::spawn(move || writer.write_to(sink, |_| {}));
        let lines = io::BufRead::lines(io::BufReader::new(reader));
        let written: Vec<_> = lines.take(QUEUE_SIZE / line.len() + 1).map(Result::unwrap).collect();
        assert!(written.last().unwrap().ends_with(" 5 lines lost"), "{:?}", written.last());
        drop(Log(queue));
    }
}
