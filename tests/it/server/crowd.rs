//! Connections that are no WebSockets, and more of them than there are slots: who has to make room, and
//! that health checks are answered.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use wsecho::server::registry::LIMIT_REACHED;

use super::fuzz::STARVED;
use crate::frames::Random;
use crate::support::{HEALTH_CHECK, UPGRADE, with_timeouts};

/// One that is silent for so long makes room before older ones.
const MAX_SILENCE: Duration = Duration::from_secs(1);

pub struct Crowd(Vec<(Hold, Duration)>);

/// How a connection holds its slot.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Hold {
    Silent,
    /// With a part of a request.
    Asking,
    /// A health check was answered, and the client keeps the connection.
    Answered,
}

impl Crowd {
    /// So many connections, with a pause before each.
    pub fn new(random: &mut Random, connections: usize) -> Self {
        // Some crowds have none of a kind, so that those that go after it make room, too.
        let kinds = [Hold::Silent, Hold::Asking, Hold::Answered];
        let kinds = &kinds[random.below(2)..2 + random.below(2)];
        let mut connection = || {
            let pause = Duration::from_millis(random.below(10) as u64);
            (kinds[random.below(kinds.len())], pause)
        };
        Crowd((0..connections).map(|_| connection()).collect())
    }

    /// Connects until `end`. Fails unless each health check is answered, and each connection that makes
    /// room goes in the order of docs/robustness.md. Returns how many made room.
    pub fn gather(self, server: SocketAddr, end: Instant) -> Result<usize, String> {
        let mut members: Vec<Member> = Vec::new();
        let (mut evicted, mut looked) = (0, Instant::now());
        for (number, (hold, pause)) in self.0.into_iter().enumerate() {
            thread::sleep(pause);
            let member = Member::connect(server, hold, number);
            let now = Instant::now();
            if now + STARVED >= end {
                break;
            }
            members.push(member?);
            if number % 4 != 0 {
                continue;
            }
            // A thread that waited for a processor sees too late who made room to know what held then.
            let is_late = now - looked >= STARVED / 2;
            looked = now;
            let gone: Vec<_> = members.extract_if(.., |member| !member.is_there()).collect();
            for gone in gone.into_iter().filter(|gone| gone.response.contains(LIMIT_REACHED)) {
                evicted += 1;
                let waits = |other: &mut Member| other.goes_before(&gone, now) && other.is_there();
                let Some(first) = members.iter_mut().position(waits).filter(|_| !is_late) else {
                    continue;
                };
                // It may have been asked to go, too.
                thread::sleep(STARVED);
                if members[first].is_there() {
                    let (gone, first) = (gone.show(now), members[first].show(now));
                    return Err(format!("{gone} made room before {first}"));
                }
            }
        }
        Ok(evicted)
    }
}

struct Member {
    stream: TcpStream,
    hold: Hold,
    number: usize,
    /// When it was connected, or got its response.
    since: Instant,
    /// What came at the end.
    response: String,
}

impl Member {
    fn connect(server: SocketAddr, hold: Hold, number: usize) -> Result<Self, String> {
        let failed = |error| format!("{hold:?} connection: {error}");
        let stream = TcpStream::connect(server).map_err(failed)?;
        let mut stream = with_timeouts(stream);
        let mut response = String::new();
        match hold {
            Hold::Silent => {}
            Hold::Asking => stream.write_all(&UPGRADE.as_bytes()[..40]).map_err(failed)?,
            Hold::Answered => {
                stream.write_all(HEALTH_CHECK.as_bytes()).map_err(failed)?;
                stream.read_to_string(&mut response).map_err(failed)?;
                if !response.starts_with("HTTP/1.1 200 ") {
                    return Err(format!("a health check got {response:?}"));
                }
                response.clear();
            }
        }
        stream.set_nonblocking(true).map_err(failed)?;
        Ok(Member { stream, hold, number, since: Instant::now(), response })
    }

    /// Whether the server still has it.
    fn is_there(&mut self) -> bool {
        if self.hold == Hold::Answered {
            // The first write is reset if the server has not, and then the second one fails.
            return self.stream.write(b"x").is_ok() && self.stream.write(b"x").is_ok();
        }
        let read = self.stream.read_to_string(&mut self.response);
        read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// Whether this one was to make room before `other`, which has just done so.
    fn goes_before(&self, other: &Member, now: Instant) -> bool {
        let is_older = self.number < other.number;
        match (self.hold, other.hold) {
            (_, Hold::Answered) => false,
            (Hold::Answered, _) => self.since + STARVED < now,
            (Hold::Silent, _) if self.since + MAX_SILENCE + STARVED < now => {
                is_older || other.hold == Hold::Asking
            }
            (_, Hold::Silent) => is_older && now < other.since + MAX_SILENCE,
            (_, Hold::Asking) => is_older,
        }
    }

    fn show(&self, now: Instant) -> String {
        format!("{:?} connection {} of {:?} ago", self.hold, self.number, now - self.since)
    }
}
