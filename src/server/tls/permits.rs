//! Which hello is answered next, when there are more hellos than processors.
//!
//! While no hello waits for long, they are answered in turn. If the oldest has waited for long, there are too
//! many, and the newest is answered first: in turn, every client would wait for all before it. The older
//! hellos are answered when the crowd gets smaller.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::thread::{self, Thread, ThreadId};
use std::time::{Duration, Instant};

use crate::lock::lock;

/// Once the oldest hello has waited for longer than this, the newest is answered first. With an ECDSA key,
/// a processor answers about 50 hellos in this time.
const MAX_WAIT_IN_TURN: Duration = Duration::from_millis(10);

/// The permits to answer, and the threads that wait for one.
pub struct Permits(Mutex<Queue>);

/// The right to answer a hello until it is dropped.
pub struct Permit<'p>(&'p Permits);

impl Permits {
    /// `permits` permits, one for each processor.
    pub fn new(permits: usize) -> Self {
        Permits(Mutex::new(Queue { free: permits, waiters: VecDeque::new() }))
    }

    /// Waits for a permit. `None` if the time passed or the thread was unparked.
    pub fn acquire(&self, wait: Option<Duration>) -> Option<Permit<'_>> {
        let thread = thread::current();
        let id = thread.id();
        {
            let mut queue = lock(&self.0);
            if queue.free > 0 {
                queue.free -= 1;
                return Some(Permit(self));
            }
            queue.waiters.push_back(Waiter { thread, since: Instant::now() });
        }
        match wait {
            Some(wait) => thread::park_timeout(wait),
            None => thread::park(),
        }
        // A thread that was given a permit is no longer in the queue.
        let has_given_up = lock(&self.0).remove(id);
        (!has_given_up).then(|| Permit(self))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let next = lock(&self.0.0).pass_on(Instant::now());
        if let Some(thread) = next {
            thread.unpark();
        }
    }
}

struct Queue {
    free: usize,
    /// The oldest first.
    waiters: VecDeque<Waiter>,
}

struct Waiter {
    thread: Thread,
    since: Instant,
}

impl Queue {
    /// Removes the thread if it still waits, and returns whether it did.
    fn remove(&mut self, thread: ThreadId) -> bool {
        let place = self.waiters.iter().position(|waiter| waiter.thread.id() == thread);
        place.is_some_and(|place| self.waiters.remove(place).is_some())
    }

    /// Takes back a permit, and gives it to the thread that is returned.
    fn pass_on(&mut self, now: Instant) -> Option<Thread> {
        let is_late = |waiter: &Waiter| now - waiter.since > MAX_WAIT_IN_TURN;
        let is_crowd = self.waiters.front().is_some_and(is_late);
        let next = if is_crowd { self.waiters.pop_back() } else { self.waiters.pop_front() };
        if next.is_none() {
            self.free += 1;
        }
        Some(next?.thread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A queue without a free permit, in which `N` threads wait since `now`, and the threads.
    fn queue<const N: usize>() -> (Queue, [Thread; N], Instant) {
        let (mut queue, now) = (Queue { free: 0, waiters: VecDeque::new() }, Instant::now());
        let threads = [(); N].map(|()| push(&mut queue, now));
        (queue, threads, now)
    }

    /// A thread that waits in `queue` since `now`.
    fn push(queue: &mut Queue, now: Instant) -> Thread {
        let thread = thread::spawn(|| {}).thread().clone();
        queue.waiters.push_back(Waiter { thread: thread.clone(), since: now });
        thread
    }

    fn next(queue: &mut Queue, threads: &[Thread], now: Instant) -> Option<usize> {
        let next = queue.pass_on(now)?.id();
        threads.iter().position(|thread| thread.id() == next)
    }

    #[test]
    fn hellos_that_do_not_wait_for_long_are_answered_in_turn() {
        let (mut queue, threads, now) = queue::<3>();
        let order = [(); 3].map(|()| next(&mut queue, &threads, now + MAX_WAIT_IN_TURN));
        assert_eq!(order, [0, 1, 2].map(Some));
        assert_eq!((next(&mut queue, &threads, now), queue.free), (None, 1));
    }

    #[test]
    fn a_crowd_is_answered_from_the_newest_to_the_oldest() {
        let (mut queue, mut threads, now) = queue::<4>();
        let later = now + 2 * MAX_WAIT_IN_TURN;
        assert_eq!(next(&mut queue, &threads, later), Some(3));
        // One that comes later comes before those that wait.
        threads[3] = push(&mut queue, later);
        let order = [(); 4].map(|()| next(&mut queue, &threads, later));
        assert_eq!(order, [3, 2, 1, 0].map(Some));
        assert_eq!((next(&mut queue, &threads, later), queue.free), (None, 1));
    }

    #[test]
    fn a_thread_that_gives_up_gets_no_permit() {
        let (mut queue, threads, now) = queue::<2>();
        assert!(queue.remove(threads[0].id()));
        assert_eq!(next(&mut queue, &threads, now), Some(1));
        // The one that was given a permit in the meantime has it.
        assert!(!queue.remove(threads[1].id()));
    }

    #[test]
    fn a_permit_is_waited_for_until_it_is_dropped_or_the_time_has_passed() {
        let permits = Permits::new(1);
        let permit = permits.acquire(None);
        assert!(permit.is_some());
        assert!(permits.acquire(Some(SECOND / 20)).is_none());
        thread::scope(|scope| {
            let waiting = scope.spawn(|| permits.acquire(None).is_some());
            while lock(&permits.0).waiters.is_empty() {
                thread::yield_now();
            }
            drop(permit);
            assert!(waiting.join().unwrap());
        });
        assert_eq!(lock(&permits.0).free, 1);
    }
}
