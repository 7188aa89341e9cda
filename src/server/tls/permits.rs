//! Permits to compute a step of a handshake: at most as many threads at a time as there are CPUs.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::lock::lock;

/// Once the oldest hello has waited for longer than this, the newest is next. Under overload, serving
/// the oldest first would serve only clients that have given up.
const OVERLOADED: Duration = Duration::from_millis(10);

/// The free permits, and the threads that wait for one.
pub struct Permits(Mutex<Queue>);

struct Queue {
    free: usize,
    /// The oldest first.
    begun: VecDeque<Waiter>,
    /// The oldest first.
    new: VecDeque<Waiter>,
}

struct Waiter {
    thread: Thread,
    since: Instant,
}

/// The step that a permit allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The answer to a hello, which is expensive.
    New,
    /// A later step, which costs a fraction of that.
    Begun,
}

/// The right to compute until it is dropped.
pub struct Permit<'p>(&'p Permits);

impl Permits {
    pub fn new(permits: usize) -> Self {
        let (begun, new) = (VecDeque::new(), VecDeque::new());
        Permits(Mutex::new(Queue { free: permits, begun, new }))
    }

    /// Waits for a permit. `None` if the wait timed out or the thread was unparked.
    pub fn acquire(&self, step: Step, wait: Option<Duration>) -> Option<Permit<'_>> {
        let mut queue = lock(&self.0);
        if queue.free > 0 {
            queue.free -= 1;
            return Some(Permit(self));
        }
        let thread = thread::current();
        let id = thread.id();
        queue.of(step).push_back(Waiter { thread, since: Instant::now() });
        drop(queue);
        match wait {
            Some(wait) => thread::park_timeout(wait),
            None => thread::park(),
        }
        let mut queue = lock(&self.0);
        let waiters = queue.of(step);
        match waiters.iter().position(|waiter| waiter.thread.id() == id) {
            // This thread gives up. After a timeout, it is one of the oldest.
            Some(place) => {
                waiters.remove(place);
                None
            }
            None => Some(Permit(self)),
        }
    }
}

impl Queue {
    fn of(&mut self, step: Step) -> &mut VecDeque<Waiter> {
        match step {
            Step::New => &mut self.new,
            Step::Begun => &mut self.begun,
        }
    }

    /// Removes the next thread to serve.
    fn pop(&mut self) -> Option<Thread> {
        let begun = self.begun.pop_front();
        let next = begun.or_else(|| {
            if self.new.front()?.since.elapsed() < OVERLOADED {
                self.new.pop_front()
            } else {
                self.new.pop_back()
            }
        });
        Some(next?.thread)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut queue = lock(&self.0.0);
        let next = queue.pop();
        if next.is_none() {
            queue.free += 1;
        }
        drop(queue);
        if let Some(thread) = next {
            thread.unpark();
        }
    }
}
