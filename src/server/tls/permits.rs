//! Who computes a step of a handshake next, where there are more than processors.
//!
//! A step that ends a handshake is cheap and comes first. Answers to hellos go by turns to the hello that
//! has waited longest, so that each has its turn, and to the one that came last, so that a crowd that the
//! processors can't serve in time does not make everyone wait for nothing.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::thread::{self, Thread, ThreadId};
use std::time::{Duration, Instant};

use crate::lock::lock;

/// The permits to compute, and the threads that wait for one.
pub struct Permits(Mutex<Queue>);

/// The purpose of a permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The answer to a hello, which takes most of the time of a handshake.
    Answer,
    /// The rest of a handshake.
    Rest,
}

/// The right to compute until it is dropped.
pub struct Permit<'p>(&'p Permits);

impl Permits {
    /// `permits` permits, one for each processor.
    pub fn new(permits: usize) -> Self {
        Permits(Mutex::new(Queue::new(permits)))
    }

    /// Waits for a permit. `None` if the time passed or the thread was unparked.
    pub fn acquire(&self, step: Step, wait: Option<Duration>) -> Option<Permit<'_>> {
        let thread = thread::current();
        let id = thread.id();
        {
            let mut queue = lock(&self.0);
            if queue.free > 0 {
                queue.free -= 1;
                return Some(Permit(self));
            }
            queue.push(step, thread, Instant::now(), wait);
        }
        match wait {
            Some(wait) => thread::park_timeout(wait),
            None => thread::park(),
        }
        // A thread that has a permit waits no longer.
        let has_given_up = lock(&self.0).remove(step, id);
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
    answers: VecDeque<Waiter>,
    /// The oldest first.
    rests: VecDeque<Waiter>,
    turn: Turn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Oldest,
    Newest,
}

struct Waiter {
    thread: Thread,
    /// From then on it is too late for the rest of the handshake.
    hopeless: Option<Instant>,
}

impl Queue {
    fn new(permits: usize) -> Self {
        Queue {
            free: permits,
            answers: VecDeque::new(),
            rests: VecDeque::new(),
            turn: Turn::Oldest,
        }
    }

    fn of(&mut self, step: Step) -> &mut VecDeque<Waiter> {
        match step {
            Step::Answer => &mut self.answers,
            Step::Rest => &mut self.rests,
        }
    }

    fn push(&mut self, step: Step, thread: Thread, now: Instant, wait: Option<Duration>) {
        // A tenth of the time is for the client, which may be far away.
        let hopeless = wait.map(|wait| now + wait / 10 * 9);
        self.of(step).push_back(Waiter { thread, hopeless });
    }

    /// Whether the thread has waited until now.
    fn remove(&mut self, step: Step, thread: ThreadId) -> bool {
        let waiters = self.of(step);
        let place = waiters.iter().position(|waiter| waiter.thread.id() == thread);
        place.is_some_and(|place| waiters.remove(place).is_some())
    }

    /// Takes back a permit, and gives it to the thread that is returned.
    fn pass_on(&mut self, now: Instant) -> Option<Thread> {
        let next = self.rests.pop_front().or_else(|| self.next_answer(now));
        if next.is_none() {
            self.free += 1;
        }
        Some(next?.thread)
    }

    fn next_answer(&mut self, now: Instant) -> Option<Waiter> {
        let is_in_time = |waiter: &Waiter| waiter.hopeless.is_none_or(|hopeless| now < hopeless);
        let (turn, place) = match self.turn {
            Turn::Oldest => (Turn::Newest, self.answers.iter().position(is_in_time)),
            Turn::Newest => (Turn::Oldest, self.answers.iter().rposition(is_in_time)),
        };
        self.turn = turn;
        self.answers.remove(place?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A queue without a free permit, and threads to wait in it.
    fn queue<const N: usize>() -> (Queue, [Thread; N], Instant) {
        let threads = [(); N].map(|()| thread::spawn(|| {}).thread().clone());
        (Queue::new(0), threads, Instant::now())
    }

    fn next(queue: &mut Queue, threads: &[Thread], now: Instant) -> Option<usize> {
        let next = queue.pass_on(now)?.id();
        threads.iter().position(|thread| thread.id() == next)
    }

    #[test]
    fn answers_go_by_turns_to_the_oldest_and_to_the_newest() {
        let (mut queue, threads, now) = queue::<5>();
        for thread in &threads {
            queue.push(Step::Answer, thread.clone(), now, None);
        }
        let order = [(); 5].map(|()| next(&mut queue, &threads, now));
        assert_eq!(order, [0, 4, 1, 3, 2].map(Some));
        assert_eq!((next(&mut queue, &threads, now), queue.free), (None, 1));
    }

    #[test]
    fn the_rest_of_a_handshake_never_waits_for_a_hello() {
        let (mut queue, threads, now) = queue::<4>();
        for (thread, step) in
            threads.iter().zip([Step::Answer, Step::Rest, Step::Answer, Step::Rest])
        {
            queue.push(step, thread.clone(), now, None);
        }
        let order = [(); 4].map(|()| next(&mut queue, &threads, now));
        assert_eq!(order, [1, 3, 0, 2].map(Some));
    }

    #[test]
    fn a_hello_whose_time_is_nearly_over_is_not_answered() {
        let (mut queue, threads, now) = queue::<3>();
        for (thread, wait) in threads.iter().zip([10, 11, 12]) {
            queue.push(Step::Answer, thread.clone(), now, Some(wait * SECOND));
        }
        let later = now + 9 * SECOND;
        assert_eq!(next(&mut queue, &threads, later), Some(1));
        assert_eq!(next(&mut queue, &threads, later), Some(2));
        assert_eq!((next(&mut queue, &threads, later), queue.free), (None, 1));
    }

    #[test]
    fn a_thread_that_gives_up_gets_no_permit() {
        let (mut queue, threads, now) = queue::<2>();
        for thread in &threads {
            queue.push(Step::Answer, thread.clone(), now, None);
        }
        assert!(queue.remove(Step::Answer, threads[0].id()));
        assert_eq!(next(&mut queue, &threads, now), Some(1));
        // The one that was given a permit in the meantime has it.
        assert!(!queue.remove(Step::Answer, threads[1].id()));
    }

    #[test]
    fn a_permit_is_waited_for_until_it_is_dropped_or_the_time_has_passed() {
        let permits = Permits::new(1);
        let permit = permits.acquire(Step::Answer, None);
        assert!(permit.is_some());
        assert!(permits.acquire(Step::Answer, Some(SECOND / 20)).is_none());
        thread::scope(|scope| {
            let waiting = scope.spawn(|| permits.acquire(Step::Answer, None).is_some());
            while lock(&permits.0).answers.is_empty() {
                thread::yield_now();
            }
            drop(permit);
            assert!(waiting.join().unwrap());
        });
        assert_eq!(lock(&permits.0).free, 1);
    }
}
