//! Bytes that came from a client: room that grows by what really came, within a budget that all
//! clients share, and that goes back to the system when it is given up.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use memmap2::MmapMut;

/// What each buffer may hold without asking the budget, in bytes.
pub const OWN: usize = 64 * 1024;

/// From here on a buffer is a memory map of its own: the allocator would keep what it once held.
const MAPPED: usize = 16 * 1024;

/// What all clients together may hold above [`OWN`] each, in bytes.
#[derive(Debug)]
pub struct Budget {
    left: AtomicUsize,
}

impl Budget {
    /// A budget of `bytes`.
    pub fn new(bytes: usize) -> Self {
        Budget {
            left: AtomicUsize::new(bytes),
        }
    }

    fn take(&self, bytes: usize) -> Result<(), MemoryShort> {
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(bytes)
            })
            .map_or(Err(MemoryShort), |_| Ok(()))
    }

    fn give_back(&self, bytes: usize) {
        self.left.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The budget, or the system's memory, has no room left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryShort;

/// A run of filled bytes with room behind it.
pub struct Buffer {
    memory: Memory,
    len: usize,
    budget: Arc<Budget>,
}

enum Memory {
    Heap(Box<[u8]>),
    /// Zeroed by the system when first touched, so room costs nothing until bytes come.
    Map(MmapMut),
}

impl Memory {
    fn new(capacity: usize) -> Result<Self, MemoryShort> {
        if capacity < MAPPED {
            return Ok(Memory::Heap(vec![0; capacity].into()));
        }
        MmapMut::map_anon(capacity)
            .map(Memory::Map)
            .map_err(|_| MemoryShort)
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Memory::Heap(bytes) => bytes,
            Memory::Map(bytes) => bytes,
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Memory::Heap(bytes) => bytes,
            Memory::Map(bytes) => bytes,
        }
    }
}

impl Buffer {
    /// An empty buffer with room for `capacity` bytes, fewer than 16 KiB.
    pub fn new(capacity: usize, budget: Arc<Budget>) -> Self {
        debug_assert!(capacity < MAPPED);
        Buffer {
            memory: Memory::Heap(vec![0; capacity].into()),
            len: 0,
            budget,
        }
    }

    /// Makes the capacity `capacity` bytes; what is filled stays, as far as it fits.
    ///
    /// # Errors
    ///
    /// [`MemoryShort`], and the buffer is as it was.
    pub fn resize(&mut self, capacity: usize) -> Result<(), MemoryShort> {
        if capacity == self.capacity() {
            return Ok(());
        }
        let (before, after) = (charge(self.capacity()), charge(capacity));
        self.budget.take(after.saturating_sub(before))?;
        let mut memory = Memory::new(capacity).inspect_err(|_| {
            self.budget.give_back(after.saturating_sub(before));
        })?;
        self.len = self.len.min(capacity);
        memory.bytes_mut()[..self.len].copy_from_slice(self.filled());
        self.memory = memory;
        self.budget.give_back(before.saturating_sub(after));
        Ok(())
    }

    /// The room and what is filled, in bytes.
    pub fn capacity(&self) -> usize {
        self.memory.bytes().len()
    }

    /// What has come.
    pub fn filled(&self) -> &[u8] {
        &self.memory.bytes()[..self.len]
    }

    /// What has come, to change in place.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.memory.bytes_mut()[..self.len]
    }

    /// Where the next bytes go.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.memory.bytes_mut()[self.len..]
    }

    /// Counts the first `bytes` of the room as filled.
    pub fn fill(&mut self, bytes: usize) {
        self.len += bytes;
        debug_assert!(self.len <= self.capacity());
    }

    /// Keeps of what is filled only `range`, moved to the front.
    pub fn keep(&mut self, range: Range<usize>) {
        let len = range.len();
        self.filled_mut().copy_within(range, 0);
        self.len = len;
    }

    /// Forgets what is filled and keeps the room.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Gives everything up, the room too.
    pub fn release(&mut self) {
        self.budget.give_back(charge(self.capacity()));
        self.memory = Memory::Heap(Box::default());
        self.len = 0;
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.release();
    }
}

fn charge(capacity: usize) -> usize {
    capacity.saturating_sub(OWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(budget: &Budget) -> usize {
        budget.left.load(Ordering::Relaxed)
    }

    #[test]
    fn a_buffer_keeps_its_bytes_through_every_size() {
        let budget = Arc::new(Budget::new(1 << 20));
        let mut buffer = Buffer::new(0, Arc::clone(&budget));
        for capacity in [4, 100, MAPPED - 1, MAPPED, OWN, 3 * OWN] {
            buffer.resize(capacity).unwrap();
            let room = buffer.room();
            room.fill(capacity as u8);
            let bytes = room.len();
            buffer.fill(bytes);
            assert_eq!(buffer.capacity(), capacity);
        }
        assert_eq!(buffer.filled()[..5], [4, 4, 4, 4, 100]);
        buffer.keep(3..5);
        assert_eq!(buffer.filled(), [4, 100]);
        buffer.resize(1).unwrap();
        assert_eq!(buffer.filled(), [4]);
    }

    #[test]
    fn only_what_is_above_a_buffers_own_is_charged_and_it_all_comes_back() {
        let budget = Arc::new(Budget::new(OWN));
        let mut one = Buffer::new(0, Arc::clone(&budget));
        let mut two = Buffer::new(0, Arc::clone(&budget));
        one.resize(OWN).unwrap();
        two.resize(OWN).unwrap();
        assert_eq!(left(&budget), OWN);
        one.resize(2 * OWN).unwrap();
        assert_eq!(left(&budget), 0);
        assert_eq!(two.resize(OWN + 1), Err(MemoryShort));
        assert_eq!(two.capacity(), OWN);
        one.resize(OWN + 1).unwrap();
        assert_eq!(left(&budget), OWN - 1);
        drop(one);
        assert_eq!(left(&budget), OWN);
    }

    #[test]
    fn what_the_system_refuses_is_not_charged() {
        let budget = Arc::new(Budget::new(usize::MAX));
        let mut buffer = Buffer::new(0, Arc::clone(&budget));
        assert_eq!(buffer.resize(isize::MAX as usize - 4096), Err(MemoryShort));
        assert_eq!(left(&budget), usize::MAX);
    }
}
