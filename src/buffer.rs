//! Memory for messages. As bytes arrive, it is charged step by step to one budget for all clients. On
//! release it returns to the system.

use std::mem;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use memmap2::{MmapMut, MmapOptions};

use crate::placement;

/// The part of a buffer that is not charged, in bytes.
pub const UNMETERED: usize = 64 * 1024;

/// Memory is charged in steps of this size, ahead of the received bytes.
pub const STEP: usize = 256 * 1024;

/// The step in bytes where a huge page begins that the message may fill. The system provides a huge page
/// in a fifth of the time of its 512 small pages.
// Without huge pages, a client's first message of 16 MiB costs 1.4 times the processor time.
pub const HUGE_STEP: usize = 2 * 1024 * 1024;

/// Once this many bytes are charged, no more huge pages are used: each may split a memory map in three,
/// and the number of maps reserved for that is limited (see `server::limits`).
const HUGE_PAGES_WITHIN: usize = 1 << 30;

/// Buffers of at least this capacity are memory maps of their own, since the allocator would keep large
/// blocks. It is just above the size of a client's input, so that a quiet client has no map.
const MMAP_THRESHOLD: usize = 20 * 1024;

/// The allocator may use a memory map for blocks of at least this many bytes.
const MALLOC_MAPS: usize = 128 * 1024;

/// Buffers of at least this capacity are [placed](placement) in their page.
const PLACED: usize = 4 * 1024;

/// The memory for all clients' buffers, beyond [`UNMETERED`] for each.
#[derive(Debug)]
pub struct Budget {
    total: usize,
    left: AtomicUsize,
    /// The bytes of address space that may still be reserved.
    addresses: AtomicUsize,
    /// The number of memory maps that may still be made.
    maps: AtomicUsize,
    /// Length of the reply prefix in bytes.
    prefix_len: usize,
}

/// Limits on the reservations of all clients. Otherwise announced messages that have not arrived could
/// exhaust the system's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservable {
    /// Beyond [`UNMETERED`] for each buffer, in bytes.
    pub addresses: usize,
    /// The number of memory maps.
    pub maps: usize,
}

impl Reservable {
    /// Without a limit.
    pub const UNLIMITED: Self = Reservable { addresses: usize::MAX, maps: usize::MAX };
}

impl Budget {
    /// A budget of `bytes`, with unlimited reservations.
    pub fn new(bytes: usize) -> Self {
        Budget::limited(bytes, Reservable::UNLIMITED, 0)
    }

    /// A budget of `bytes` within the limits of `reservable`. Buffers are [placed](placement) for text
    /// replies with a prefix of `prefix_len` bytes.
    pub fn limited(bytes: usize, reservable: Reservable, prefix_len: usize) -> Self {
        let Reservable { addresses, maps } = reservable;
        Budget {
            total: bytes,
            left: bytes.into(),
            addresses: addresses.into(),
            maps: maps.into(),
            prefix_len,
        }
    }

    /// Charges `bytes` of the allocator's memory until the result is dropped.
    ///
    /// # Errors
    ///
    /// [`OverBudget`], and nothing is charged.
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Result<Charge, OverBudget> {
        self.charge_above(0, bytes)
    }

    /// Charges `bytes` for something optional, which must leave half of the budget free.
    ///
    /// # Errors
    ///
    /// [`OverBudget`], and nothing is charged.
    pub fn charge_optional(self: &Arc<Self>, bytes: usize) -> Result<Charge, OverBudget> {
        self.charge_above(self.total / 2, bytes)
    }

    /// Charges `bytes`, unless less than `least` would remain.
    fn charge_above(self: &Arc<Self>, least: usize, bytes: usize) -> Result<Charge, OverBudget> {
        let map = if bytes < MALLOC_MAPS { None } else { Some(Reserved::take(self, bytes)?) };
        take(&self.left, bytes, least)?;
        Ok(Charge { budget: Arc::clone(self), bytes, map })
    }

    /// The bytes that may still be charged.
    pub fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }
}

/// A part of the budget, for memory that is not in a [`Buffer`].
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
    map: Option<Reserved>,
}

impl Charge {
    /// Moves the charge to `budget`, unless that is exhausted.
    pub fn move_to(&mut self, budget: &Arc<Budget>) {
        if !self.is_to(budget)
            && let Ok(charge) = budget.charge(self.bytes)
        {
            *self = charge;
        }
    }

    /// Whether it is a charge to `budget`.
    pub fn is_to(&self, budget: &Arc<Budget>) -> bool {
        Arc::ptr_eq(&self.budget, budget)
    }

    /// Returns the charge, and leaves one of nothing.
    #[must_use = "it is given back on drop"]
    pub fn take(&mut self) -> Self {
        let budget = Arc::clone(&self.budget);
        Charge { budget, bytes: mem::take(&mut self.bytes), map: self.map.take() }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        give_back(&self.budget.left, self.bytes);
    }
}

/// Subtracts `bytes`, unless less than `least` would remain.
fn take(from: &AtomicUsize, bytes: usize, least: usize) -> Result<(), OverBudget> {
    let taken = |left: usize| left.checked_sub(bytes).filter(|left| *left >= least);
    from.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken)
        .map_or(Err(OverBudget), |_| Ok(()))
}

fn give_back(to: &AtomicUsize, bytes: usize) {
    to.fetch_add(bytes, Ordering::Relaxed);
}

/// The budget or the system's memory is exhausted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverBudget;

/// Filled bytes with spare memory after them.
///
/// ```text
///   filled     spare       reserved: address space, no memory
/// ├─────────┼───────────┼─────────────────────────────────────┤
/// 0        len       granted                              capacity
/// ```
///
/// Granted memory may be touched, and is charged beyond [`UNMETERED`].
pub struct Buffer {
    memory: Memory,
    len: usize,
    granted: usize,
    budget: Arc<Budget>,
}

struct Memory {
    block: Block,
    /// The offset in the block.
    start: usize,
    capacity: usize,
}

enum Block {
    Heap(Box<[u8]>),
    Map(Map),
}

/// A memory map and its reservation, in the order in which they must be dropped.
struct Map {
    bytes: MmapMut,
    _reserved: Reserved,
}

/// The reservation of one map and its address space.
#[derive(Debug)]
struct Reserved {
    budget: Arc<Budget>,
    addresses: usize,
}

impl Reserved {
    fn take(budget: &Arc<Budget>, addresses: usize) -> Result<Self, OverBudget> {
        take(&budget.addresses, addresses, 0)?;
        take(&budget.maps, 1, 0).inspect_err(|_| give_back(&budget.addresses, addresses))?;
        Ok(Reserved { budget: Arc::clone(budget), addresses })
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        give_back(&self.budget.addresses, self.addresses);
        give_back(&self.budget.maps, 1);
    }
}

impl Memory {
    fn none() -> Self {
        Memory { block: Block::Heap(Box::default()), start: 0, capacity: 0 }
    }

    fn new(capacity: usize, budget: &Arc<Budget>) -> Result<Self, OverBudget> {
        // Placement pays only for large copies.
        let slack = if capacity < PLACED { 0 } else { placement::MAX_SHIFT };
        let len = capacity.saturating_add(slack);
        let block = if len < MMAP_THRESHOLD {
            Block::Heap(vec![0; len].into())
        } else {
            Block::Map(Map::new(len, Reserved::take(budget, above_unmetered(capacity))?)?)
        };
        let start = placement::shift(block.bytes().as_ptr().addr(), budget.prefix_len).min(slack);
        Ok(Memory { block, start, capacity })
    }

    /// Asks the system to provide `range` as a huge page when its first byte is touched.
    // Providing it at once would hold the kernel's lock that starting a thread needs.
    fn advise_huge_page(&mut self, range: Range<usize>) {
        // Not every kernel has huge pages. Without them, small pages are provided one by one.
        #[cfg(target_os = "linux")]
        if let Block::Map(map) = &self.block {
            let start = self.start + range.start;
            let _ = map.bytes.advise_range(memmap2::Advice::HugePage, start, range.len());
        }
    }

    #[inline]
    fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.block.bytes()[self.start + range.start..self.start + range.end]
    }

    #[inline]
    fn bytes_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        let bytes = match &mut self.block {
            Block::Heap(bytes) => &mut **bytes,
            Block::Map(map) => &mut map.bytes,
        };
        &mut bytes[self.start + range.start..self.start + range.end]
    }
}

impl Map {
    fn new(len: usize, reserved: Reserved) -> Result<Self, OverBudget> {
        // The map reserves no swap space, and gets its pages when they are first touched.
        let bytes = MmapOptions::new().len(len).no_reserve_swap().map_anon();
        let bytes = bytes.map_err(|_| OverBudget)?;
        // Otherwise the first byte could occupy a whole huge page. The advice fails if the kernel has no
        // huge pages.
        #[cfg(target_os = "linux")]
        let _ = bytes.advise(memmap2::Advice::NoHugePage);
        Ok(Map { bytes, _reserved: reserved })
    }
}

impl Block {
    fn bytes(&self) -> &[u8] {
        match self {
            Block::Heap(bytes) => bytes,
            Block::Map(map) => &map.bytes,
        }
    }
}

impl Buffer {
    /// An empty buffer without memory.
    pub fn new(budget: Arc<Budget>) -> Self {
        Buffer { memory: Memory::none(), len: 0, granted: 0, budget }
    }

    /// Raises the capacity to at least `capacity` bytes, or to the maximum that the whole budget allows.
    /// Keeps the filled bytes.
    ///
    /// # Errors
    ///
    /// [`OverBudget`] if no address space or no memory map is left.
    pub fn reserve(&mut self, capacity: usize) -> Result<(), OverBudget> {
        let capacity = capacity.min(UNMETERED.saturating_add(self.budget.total));
        if capacity > self.capacity() { self.replace(capacity) } else { Ok(()) }
    }

    /// Lowers the capacity to at most `capacity` bytes. Keeps the filled bytes that fit.
    pub fn shrink(&mut self, capacity: usize) {
        if capacity < self.capacity() {
            // This charges nothing more, since only charged buffers are larger than UNMETERED. If there
            // is no memory for a smaller block, the larger one stays.
            let _ = self.replace(capacity);
        }
    }

    /// Lowers the capacity to at most `capacity` bytes, but keeps the filled bytes and room for one more.
    pub fn shrink_spare(&mut self, capacity: usize) {
        self.shrink(capacity.max(self.len + 1));
    }

    fn replace(&mut self, capacity: usize) -> Result<(), OverBudget> {
        debug_assert!(self.len <= UNMETERED, "what is charged never moves");
        if self.len == 0 && matches!(self.memory.block, Block::Map(_)) {
            // Released first, so that there are never two maps.
            self.release();
        }
        let mut memory = Memory::new(capacity, &self.budget)?;
        let len = self.len.min(capacity);
        memory.bytes_mut(0..len).copy_from_slice(&self.filled()[..len]);
        let budget = Arc::clone(&self.budget);
        *self = Buffer { memory, len, granted: capacity.min(UNMETERED), budget };
        Ok(())
    }

    /// Grants and charges another step.
    ///
    /// # Errors
    ///
    /// [`OverBudget`], and nothing changes.
    pub fn charge_ahead(&mut self) -> Result<(), OverBudget> {
        let step = self.next_step();
        if step == 0 {
            return Err(OverBudget);
        }
        take(&self.budget.left, step, 0)?;
        if step == HUGE_STEP {
            self.memory.advise_huge_page(self.granted..self.granted + step);
        }
        self.granted += step;
        Ok(())
    }

    /// The next step: a huge page if one begins here and fits the budget, else a part of one.
    fn next_step(&self) -> usize {
        let reserved = self.capacity() - self.granted;
        let left = self.budget.left();
        let address = self.memory.bytes(0..0).as_ptr().addr() + self.granted;
        let to_huge_page = address.next_multiple_of(HUGE_STEP) - address;
        let is_huge_page_near = reserved >= to_huge_page + HUGE_STEP
            && left >= HUGE_STEP
            && self.budget.total - left < HUGE_PAGES_WITHIN;
        match to_huge_page {
            0 if is_huge_page_near => HUGE_STEP,
            1..STEP if is_huge_page_near => to_huge_page,
            _ => STEP.min(reserved),
        }
    }

    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// In bytes.
    pub fn capacity(&self) -> usize {
        self.memory.capacity
    }

    /// In bytes, filled or spare.
    pub fn granted(&self) -> usize {
        self.granted
    }

    /// The filled bytes.
    pub fn filled(&self) -> &[u8] {
        self.memory.bytes(0..self.len)
    }

    /// The filled bytes, mutable.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        self.memory.bytes_mut(0..self.len)
    }

    /// The granted memory after the filled bytes.
    pub fn spare_mut(&mut self) -> &mut [u8] {
        self.memory.bytes_mut(self.len..self.granted)
    }

    /// Marks the first `bytes` of the spare memory as filled.
    pub fn advance(&mut self, bytes: usize) {
        self.len += bytes;
        debug_assert!(self.len <= self.granted);
    }

    /// Keeps only `range` of the filled bytes, at the front.
    pub fn keep(&mut self, range: Range<usize>) {
        let len = range.len();
        self.filled_mut().copy_within(range, 0);
        self.len = len;
    }

    /// Keeps only the first `len` of the filled bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Removes the filled bytes and keeps the memory.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Removes the filled bytes and frees the memory.
    pub fn release(&mut self) {
        self.memory = Memory::none();
        // Returned only after the memory is freed, since another buffer may be granted it at once.
        give_back(&self.budget.left, above_unmetered(self.granted));
        (self.len, self.granted) = (0, 0);
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.release();
    }
}

fn above_unmetered(bytes: usize) -> usize {
    bytes.saturating_sub(UNMETERED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(buffer: &mut Buffer, byte: u8) {
        let spare = buffer.spare_mut();
        spare.fill(byte);
        let bytes = spare.len();
        buffer.advance(bytes);
    }

    #[test]
    fn a_buffer_keeps_its_bytes_through_every_capacity() {
        let mut buffer = Buffer::new(Arc::new(Budget::new(0)));
        for capacity in [4, 100, MMAP_THRESHOLD - 1, MMAP_THRESHOLD, UNMETERED] {
            buffer.reserve(capacity).unwrap();
            fill(&mut buffer, capacity as u8);
            assert_eq!((buffer.capacity(), buffer.filled().len()), (capacity, capacity));
        }
        assert_eq!(buffer.filled()[..5], [4, 4, 4, 4, 100]);
        buffer.keep(3..5);
        assert_eq!(buffer.filled(), [4, 100]);
        buffer.reserve(10).unwrap();
        assert_eq!(buffer.capacity(), UNMETERED);
        buffer.shrink(1);
        assert_eq!((buffer.capacity(), buffer.filled()), (1, &[4][..]));
    }

    #[test]
    fn the_budget_is_charged_a_step_ahead_of_the_bytes_and_gets_all_back() {
        let budget = Arc::new(Budget::new(2 * STEP + 10));
        let mut buffer = Buffer::new(Arc::clone(&budget));
        buffer.reserve(UNMETERED + 10 * STEP).unwrap();
        assert_eq!(buffer.capacity(), UNMETERED + 2 * STEP + 10);
        fill(&mut buffer, 1);
        assert_eq!((buffer.filled().len(), budget.left()), (UNMETERED, 2 * STEP + 10));
        for left in [STEP + 10, 10] {
            buffer.charge_ahead().unwrap();
            assert_eq!((buffer.spare_mut().len(), budget.left()), (STEP, left));
            fill(&mut buffer, 2);
        }
        let mut other = Buffer::new(Arc::clone(&budget));
        other.reserve(UNMETERED + STEP).unwrap();
        assert_eq!(other.charge_ahead(), Err(OverBudget));
        assert_eq!(budget.left(), 10);
        buffer.charge_ahead().unwrap();
        fill(&mut buffer, 2);
        assert_eq!(buffer.charge_ahead(), Err(OverBudget));
        // The memory stays charged for as long as it is held.
        buffer.clear();
        assert_eq!(budget.left(), 0);
        buffer.release();
        assert_eq!((buffer.capacity(), budget.left()), (0, 2 * STEP + 10));

        // The last step is no longer than the capacity.
        buffer.reserve(UNMETERED + 10).unwrap();
        buffer.charge_ahead().unwrap();
        assert_eq!(budget.left(), 2 * STEP);
        drop(buffer);
        assert_eq!(budget.left(), 2 * STEP + 10);
    }

    #[test]
    fn a_huge_page_is_charged_whole_where_it_begins_and_the_budget_has_it() {
        const LEN: usize = 5 * HUGE_STEP;
        for (total, others) in
            [(LEN, LEN - HUGE_STEP + 1), (HUGE_PAGES_WITHIN + LEN, HUGE_PAGES_WITHIN)]
        {
            let budget = Arc::new(Budget::new(total));
            let mut buffer = Buffer::new(Arc::clone(&budget));
            buffer.reserve(UNMETERED + LEN).unwrap();
            fill(&mut buffer, 1);
            let mut huge_pages = 0;
            while buffer.len < buffer.capacity() {
                buffer.charge_ahead().unwrap();
                let spare = buffer.spare_mut();
                if spare.len() == HUGE_STEP {
                    assert_eq!(spare.as_ptr().addr() % HUGE_STEP, 0);
                    huge_pages += 1;
                } else {
                    assert!(spare.len() <= STEP);
                }
                fill(&mut buffer, 2);
                assert_eq!(total - budget.left(), buffer.len - UNMETERED);
            }
            assert!((3..=5).contains(&huge_pages), "{huge_pages}");

            buffer.release();
            let _others = budget.charge(others).unwrap();
            buffer.reserve(UNMETERED + LEN).unwrap();
            let mut granted = buffer.granted;
            while buffer.charge_ahead().is_ok() {
                assert!(buffer.granted - granted <= STEP);
                granted = buffer.granted;
            }
            assert!(granted > UNMETERED && budget.left() < STEP);
        }
    }

    #[test]
    fn no_more_addresses_are_reserved_than_may_be() {
        let reservable = Reservable { addresses: STEP, ..Reservable::UNLIMITED };
        let budget = Arc::new(Budget::limited(usize::MAX, reservable, 0));
        let [mut one, mut two] = [(); 2].map(|()| Buffer::new(Arc::clone(&budget)));
        one.reserve(UNMETERED + STEP).unwrap();
        two.reserve(UNMETERED).unwrap();
        assert_eq!(two.reserve(UNMETERED + 1), Err(OverBudget));
        drop(one);
        two.reserve(UNMETERED + STEP).unwrap();
    }

    #[test]
    fn no_more_maps_are_held_than_may_be() {
        let reservable = Reservable { addresses: 2 * STEP, maps: 1 };
        let budget = Arc::new(Budget::limited(usize::MAX, reservable, 0));
        let [mut one, mut two] = [(); 2].map(|()| Buffer::new(Arc::clone(&budget)));
        one.reserve(MMAP_THRESHOLD).unwrap();
        two.reserve(MMAP_THRESHOLD / 2).unwrap();
        for _ in 0..2 {
            assert_eq!(two.reserve(UNMETERED + STEP), Err(OverBudget));
            fill(&mut two, 2);
            assert!(two.filled() == [2; MMAP_THRESHOLD / 2]);
        }
        one.release();
        two.reserve(UNMETERED + STEP).unwrap();
        assert_eq!(one.reserve(MMAP_THRESHOLD), Err(OverBudget));
        two.clear();
        two.reserve(UNMETERED + 2 * STEP).unwrap();
        two.shrink(10);
        one.reserve(MMAP_THRESHOLD).unwrap();
    }

    #[test]
    fn what_can_be_done_without_leaves_half_of_the_budget() {
        let budget = Arc::new(Budget::new(1000));
        let half = budget.charge_optional(500).unwrap();
        assert_eq!(budget.charge_optional(1).err(), Some(OverBudget));
        let other = budget.charge(500).unwrap();
        drop(half);
        assert_eq!(budget.charge_optional(1).err(), Some(OverBudget));
        drop(other);
        assert_eq!(budget.left(), 1000);
    }

    #[test]
    fn a_charge_moves_to_another_budget_that_has_enough() {
        let budgets = [10, 9, 10].map(|bytes| Arc::new(Budget::new(bytes)));
        let left = || budgets.each_ref().map(|budget| budget.left());
        let mut charge = budgets[0].charge(10).unwrap();
        for (to, expected) in [(0, [0, 9, 10]), (1, [0, 9, 10]), (2, [10, 9, 0])] {
            charge.move_to(&budgets[to]);
            assert_eq!(left(), expected, "to {to}");
        }
        drop(charge);
        assert_eq!(left(), [10, 9, 10]);
    }

    #[test]
    fn a_charge_for_what_the_allocator_maps_takes_a_map() {
        let reservable = Reservable { maps: 1, ..Reservable::UNLIMITED };
        let budget = Arc::new(Budget::limited(usize::MAX, reservable, 0));
        let small = budget.charge(MALLOC_MAPS - 1).unwrap();
        let large = budget.charge(MALLOC_MAPS).unwrap();
        assert_eq!(budget.charge(MALLOC_MAPS).err(), Some(OverBudget));
        drop((small, large));
        budget.charge(MALLOC_MAPS).unwrap();
    }

    #[test]
    fn addresses_that_the_system_does_not_have_are_refused() {
        let mut buffer = Buffer::new(Arc::new(Budget::new(usize::MAX)));
        buffer.reserve(4).unwrap();
        fill(&mut buffer, 7);
        assert_eq!(buffer.reserve(isize::MAX as usize - 4096), Err(OverBudget));
        assert_eq!(buffer.filled(), [7; 4]);
    }
}
