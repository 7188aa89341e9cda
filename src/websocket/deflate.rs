//! Compresses and decompresses the messages of permessage-deflate (RFC 7692).
//!
//! A context is the state of one direction: the window and, for compression, its search tables. Each
//! message begins with a fresh context, so that a small [`Pool`] of contexts serves all clients. With
//! context takeover, each client keeps its own inflater and the last bytes of its replies, which a
//! deflater of the pool reads before the next reply. A deflater of its own, of 262 KiB, would no longer be
//! in the CPU cache when the next message arrives, if there are many clients.

use std::mem;
use std::sync::{Arc, Mutex};

use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Inflate};

use crate::buffer::{Budget, Buffer, Charge, OverBudget, UNMETERED};
use crate::websocket::close::{self, CloseFrame};
use crate::websocket::error::ProtocolError;
use crate::websocket::inflate::{Inflating, MAX_WINDOW_BITS, TAIL};
use crate::websocket::message::{Encoding, Kind};
use crate::websocket::negotiation::Parameters;

/// The compression level, of 9: the one with the lowest product of bytes and time, whatever the size of
/// the message (docs/performance.md).
const LEVEL: i32 = 1;

/// With context takeover, a reply may refer to this many bytes of earlier replies. Half or twice as many
/// have the same product of bytes and time (docs/performance.md).
const HISTORY: usize = 4 * 1024;

/// The size of an inflater in bytes.
const INFLATER_MEMORY: usize = 48 * 1024;

/// The maximum size of a deflater in bytes: tables, and two windows with their index.
const DEFLATER_MEMORY: usize = 134 * 1024 + (4 << MAX_WINDOW_BITS);

/// The maximum size of [`Contexts`] in bytes, excluding the part of a message above [`UNMETERED`].
const CONTEXTS_MEMORY: usize = INFLATER_MEMORY + DEFLATER_MEMORY + UNMETERED;

/// The maximum size of a short compressed message in bytes.
const SHORT: usize = 1024;

/// The number of contexts, in use or idle, that are not charged to the budget.
const RESERVED: usize = 32;

/// The contexts that all clients share.
///
/// A client's thread holds contexts only while it computes, never while it waits for its peer. It also
/// never waits for another client's contexts: if none are idle, it makes new ones. The reserve serves
/// small messages even while large ones exhaust the budget.
pub struct Pool {
    /// The idle contexts for [short](SHORT) messages.
    short: Idle,
    /// The idle contexts for longer messages. Apart, since a long message holds its contexts for long
    /// and returns them without memory: a short one would have to map new memory, and wait in the kernel
    /// for each other thread that does.
    long: Idle,
    reserve: Arc<Budget>,
    budget: Arc<Budget>,
}

/// Idle contexts, each with its part of the reserve. The last one returned is used first, since its
/// memory is likely still cached.
type Idle = Mutex<Vec<(Contexts, Charge)>>;

/// One context per direction, each made at its first use.
struct Contexts {
    inflater: Option<Inflate>,
    /// With the base-2 logarithm of its window. Another window needs a new deflater.
    deflater: Option<(u8, Deflate)>,
    /// The inflated message. Its memory is kept, up to [`UNMETERED`].
    message: Buffer,
}

/// An inflated message. Returns its contexts to the [`Pool`] on drop.
pub struct Inflated {
    contexts: Contexts,
    charge: Charge,
    pool: Arc<Pool>,
    compressed_size: usize,
}

impl Pool {
    /// A pool without contexts. `budget` is charged for messages, for clients' own contexts, and for
    /// contexts beyond the reserve.
    pub fn new(budget: Arc<Budget>) -> Self {
        let reserve = Arc::new(Budget::new(RESERVED * CONTEXTS_MEMORY));
        Pool { short: Mutex::default(), long: Mutex::default(), reserve, budget }
    }

    /// The idle contexts for a message of `compressed_size` bytes, and the others.
    fn idle(&self, compressed_size: usize) -> [&Idle; 2] {
        if compressed_size <= SHORT { [&self.short, &self.long] } else { [&self.long, &self.short] }
    }

    /// Removes contexts from the pool, or makes them, for a message of `compressed_size` bytes.
    fn take(self: &Arc<Self>, compressed_size: usize) -> Result<Inflated, OverBudget> {
        // try_lock, so that this never waits for another thread.
        let pop = |idle: &Idle| idle.try_lock().ok()?.pop();
        let make = |charge| (Contexts::new(&self.budget), charge);
        let [idle, others] = self.idle(compressed_size);
        let (contexts, charge) = pop(idle)
            .or_else(|| self.reserve.charge(CONTEXTS_MEMORY).ok().map(make))
            // The others may hold what is left of the reserve.
            .or_else(|| pop(others))
            .map_or_else(|| self.budget.charge(CONTEXTS_MEMORY).map(make), Ok)?;
        Ok(Inflated { contexts, charge, pool: Arc::clone(self), compressed_size })
    }
}

impl Inflated {
    pub fn message(&self) -> &[u8] {
        self.contexts.message.filled()
    }

    /// In bytes.
    pub fn compressed_size(&self) -> usize {
        self.compressed_size
    }

    /// The message, without the contexts.
    pub(super) fn into_message(mut self) -> Buffer {
        mem::replace(&mut self.contexts.message, Buffer::new(Arc::clone(&self.pool.budget)))
    }
}

impl Drop for Inflated {
    fn drop(&mut self) {
        let Inflated { contexts, charge, pool, compressed_size } = self;
        contexts.message.clear();
        if contexts.message.capacity() > UNMETERED {
            contexts.message.release();
        }
        // Its own part of the reserve is kept, since the others may hold all of the rest.
        charge.move_to(&pool.reserve);
        if charge.is_to(&pool.reserve)
            && let Ok(mut idle) = pool.idle(*compressed_size)[0].try_lock()
        {
            idle.push((mem::replace(contexts, Contexts::new(&pool.budget)), charge.take()));
        }
    }
}

impl Contexts {
    fn new(budget: &Arc<Budget>) -> Self {
        Contexts { inflater: None, deflater: None, message: Buffer::new(Arc::clone(budget)) }
    }
}

fn new_inflater() -> Inflate {
    Inflate::new(false, MAX_WINDOW_BITS)
}

/// A window of 9 bits can stand in for one of 8: the compressor refers back by at most its window's size
/// less 262, which is 250 bytes.
fn new_deflater(bits: u8) -> Deflate {
    Deflate::new_with_config(DeflateConfig {
        level: LEVEL,
        // Negative, for DEFLATE data without a header.
        window_bits: -i32::from(bits.max(9)),
        // The fastest level needs no buffer for symbols. Otherwise a reset would clear one of 48 KiB.
        mem_level: 1,
        ..DeflateConfig::default()
    })
}

/// One client's permessage-deflate.
pub struct PerMessageDeflate {
    parameters: Parameters,
    pool: Arc<Pool>,
    /// Only with context takeover. Made at the first message.
    inflater: Option<Box<Inflate>>,
    /// The last bytes of the earlier replies, up to [`HISTORY`]. Empty without context takeover.
    history: Vec<u8>,
    /// The charges for the inflater and the history, made in advance so that no message is refused for
    /// lack of memory.
    _charges: [Option<Charge>; 2],
    total: Sizes,
}

/// Total sizes of messages and replies in bytes, before and after compression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    pub plain: u64,
    pub compressed: u64,
}

impl PerMessageDeflate {
    /// Compression with `parameters`. If memory is short, context takeover is dropped from them, so
    /// answer the offer with [`parameters`](Self::parameters).
    pub fn new(mut parameters: Parameters, pool: Arc<Pool>) -> Self {
        let charge = |no_context_takeover: &mut bool, bytes| {
            let charge =
                if *no_context_takeover { None } else { pool.budget.charge_optional(bytes).ok() };
            *no_context_takeover = charge.is_none();
            charge
        };
        let charges = [
            charge(&mut parameters.client_no_context_takeover, INFLATER_MEMORY),
            charge(&mut parameters.server_no_context_takeover, HISTORY),
        ];
        PerMessageDeflate {
            parameters,
            pool,
            inflater: None,
            history: Vec::new(),
            _charges: charges,
            total: Sizes::default(),
        }
    }

    /// The agreed parameters.
    pub fn parameters(&self) -> Parameters {
        self.parameters
    }

    /// Inflates a whole message, to at most `max_size` bytes.
    ///
    /// # Errors
    ///
    /// The close frame that names the reason.
    pub(super) fn inflate(
        &mut self,
        kind: Kind,
        payload: &[u8],
        max_size: usize,
    ) -> Result<Inflated, CloseFrame> {
        let inflated = self.pool.take(payload.len());
        let mut inflated = inflated.map_err(|OverBudget| close::OVER_BUDGET)?;
        let Contexts { inflater: shared, message, .. } = &mut inflated.contexts;
        let context = if self.parameters.client_no_context_takeover {
            let shared = shared.get_or_insert_with(new_inflater);
            shared.reset(false);
            shared
        } else {
            self.inflater.get_or_insert_with(|| Box::new(new_inflater()))
        };
        let charge = &mut inflated.charge;
        let mut inflating = Inflating { context, kind, max_size, message, charge, checked: 0 };
        inflating.run(payload).map_err(|close| {
            let is_first = self.total.compressed == 0;
            let is_too_far =
                context.error_message().is_some_and(|message| message.ends_with("too far back"));
            if self.parameters.client_no_context_takeover && !is_first && is_too_far {
                ProtocolError::ContextKept.into()
            } else {
                close
            }
        })?;
        self.count(inflated.message().len(), payload.len());
        Ok(inflated)
    }

    /// Deflates `prefix` and the message as one message to `out`. If memory is short, or if the result
    /// is not shorter, `out` becomes the message alone, uncompressed.
    pub(super) fn deflate(
        &mut self,
        prefix: &[u8],
        mut inflated: Inflated,
        out: &mut Buffer,
    ) -> Encoding {
        let deflated = self.try_deflate(prefix, &mut inflated.contexts, out);
        if deflated == Err(NotDeflated) {
            *out = inflated.into_message();
            return Encoding::Plain;
        }
        self.count(prefix.len() + inflated.message().len(), out.filled().len());
        Encoding::Deflated
    }

    /// Deflates a message that is not a reply.
    ///
    /// # Errors
    ///
    /// [`OverBudget`]. The content of `out` is unspecified then.
    pub(super) fn deflate_message(
        &mut self,
        message: &[u8],
        out: &mut Buffer,
    ) -> Result<(), OverBudget> {
        // Passed as the prefix of an empty message, since only a prefix may become longer.
        let empty = self.pool.take(0)?;
        match self.deflate(message, empty, out) {
            Encoding::Deflated => Ok(()),
            Encoding::Plain => Err(OverBudget),
        }
    }

    fn try_deflate(
        &mut self,
        prefix: &[u8],
        contexts: &mut Contexts,
        out: &mut Buffer,
    ) -> Result<(), NotDeflated> {
        let bits = self.parameters.server_max_window_bits.unwrap_or(MAX_WINDOW_BITS);
        let Contexts { deflater, message, .. } = contexts;
        deflater.take_if(|(made_with, _)| *made_with != bits);
        let (_, taken) = deflater.get_or_insert_with(|| (bits, new_deflater(bits)));
        taken.reset();
        let ready = taken.set_dictionary(&self.history).map_err(|_| NotDeflated);
        if let Err(error) = ready.and_then(|_| deflate(taken, prefix, message.filled(), out)) {
            // It may have stopped inside a block, which zlib-rs does not forget at a reset.
            *deflater = None;
            return Err(error);
        }
        if !self.parameters.server_no_context_takeover {
            // Only on success: the client's window gets no message that is sent uncompressed.
            self.remember(prefix);
            self.remember(message.filled());
        }
        Ok(())
    }

    fn remember(&mut self, sent: &[u8]) {
        let sent = &sent[sent.len().saturating_sub(HISTORY)..];
        let excess = (self.history.len() + sent.len()).saturating_sub(HISTORY);
        self.history.drain(..excess);
        // Not more than what is charged.
        self.history.reserve_exact(sent.len());
        self.history.extend_from_slice(sent);
    }

    fn count(&mut self, plain: usize, compressed: usize) {
        self.total.plain += plain as u64;
        self.total.compressed += compressed as u64;
    }

    /// The sizes of all compressed messages and replies.
    pub fn total(&self) -> Sizes {
        self.total
    }
}

/// Memory is short, or compression did not make the reply shorter.
#[derive(Debug, PartialEq, Eq)]
struct NotDeflated;

impl From<OverBudget> for NotDeflated {
    fn from(_: OverBudget) -> Self {
        NotDeflated
    }
}

/// Deflates `prefix` and `message` as one message to `out` (§7.2.1).
///
/// Gives up on a large message that does not become shorter.
fn deflate(
    deflater: &mut Deflate,
    prefix: &[u8],
    message: &[u8],
    out: &mut Buffer,
) -> Result<(), NotDeflated> {
    /// The ratio is checked after each chunk. Shorter replies are always compressed, since some clients
    /// fail at an uncompressed message on a connection with compression.
    const CHUNK: usize = 1024 * 1024;
    let len = prefix.len() + message.len();
    out.clear();
    // Enough for incompressible data at any level.
    out.reserve(len + len / 8 + len / 64 + 64)?;
    if len == 0 {
        // §7.2.3.6. A compressor writes nothing for a second empty message.
        out.spare_mut()[0] = 0x00;
        out.advance(1);
        return Ok(());
    }
    compress(deflater, prefix, DeflateFlush::NoFlush, out)?;
    let mut rest = message;
    loop {
        let chunk;
        (chunk, rest) = rest.split_at(rest.len().min(CHUNK));
        compress(deflater, chunk, DeflateFlush::SyncFlush, out)?;
        if rest.is_empty() {
            break;
        }
        if out.filled().len() >= len - rest.len() {
            return Err(NotDeflated);
        }
    }
    debug_assert!(out.filled().ends_with(&TAIL));
    out.truncate(out.filled().len() - TAIL.len());
    Ok(())
}

/// Appends `input`, compressed, to `out`.
fn compress(
    deflater: &mut Deflate,
    mut input: &[u8],
    flush: DeflateFlush,
    out: &mut Buffer,
) -> Result<(), NotDeflated> {
    /// A flush that exactly fills less room than this would be written again.
    const MIN_ROOM: usize = 6;
    loop {
        if out.spare_mut().len() < MIN_ROOM {
            out.charge_ahead()?;
        }
        let room = out.spare_mut();
        let room_len = room.len();
        let (read, written) = (deflater.total_in(), deflater.total_out());
        deflater.compress(input, room, flush).map_err(|_| NotDeflated)?;
        input = &input[(deflater.total_in() - read) as usize..];
        let written = (deflater.total_out() - written) as usize;
        out.advance(written);
        if written < room_len {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_beyond_the_reserve_are_charged_and_are_not_kept() {
        let budget = Arc::new(Budget::new(2 * CONTEXTS_MEMORY));
        let pool = Arc::new(Pool::new(Arc::clone(&budget)));
        for _ in 0..2 {
            let taken: Vec<_> = (0..RESERVED + 2).map(|_| pool.take(0).unwrap()).collect();
            assert_eq!((pool.reserve.left(), budget.left()), (0, 0));
            assert_eq!(pool.take(0).err(), Some(OverBudget));
            drop(taken);
            assert_eq!(budget.left(), 2 * CONTEXTS_MEMORY);
            assert_eq!(pool.short.lock().unwrap().len(), RESERVED);
        }
    }

    #[test]
    fn idle_contexts_for_messages_of_one_size_serve_the_other_when_the_reserve_is_exhausted() {
        for [idle, needed] in [[SHORT + 1, SHORT], [SHORT, SHORT + 1]] {
            let pool = Arc::new(Pool::new(Arc::new(Budget::new(0))));
            let take = |size| (0..RESERVED).map(|_| pool.take(size).unwrap()).collect::<Vec<_>>();
            drop(take(idle));
            let taken = take(needed);
            assert!(pool.take(needed).is_err());
            drop(taken);
            drop(take(idle));
        }
    }

    #[test]
    fn contexts_for_short_messages_keep_their_memory_whatever_longer_ones_do() {
        let budget = Arc::new(Budget::new(1 << 30));
        let pool = Arc::new(Pool::new(Arc::clone(&budget)));
        let use_contexts = |compressed_size: usize, len: usize| {
            let mut taken = pool.take(compressed_size).unwrap();
            let kept = taken.contexts.message.capacity();
            taken.contexts.message.reserve(len).unwrap();
            kept
        };
        assert_eq!(use_contexts(SHORT, UNMETERED), 0);
        for _ in 0..2 {
            assert_eq!(use_contexts(SHORT + 1, 2 * UNMETERED), 0);
        }
        assert_eq!(use_contexts(0, UNMETERED), UNMETERED);
    }

    #[test]
    fn a_message_that_becomes_large_leaves_the_reserve_to_small_ones() {
        let budget = Arc::new(Budget::new(1 << 30));
        let pool = Arc::new(Pool::new(Arc::clone(&budget)));
        let mut deflate = PerMessageDeflate::new(Parameters::default(), Arc::clone(&pool));
        let mut payload = Buffer::new(Arc::clone(&budget));
        for (len, is_large) in [(UNMETERED, false), (UNMETERED + 1, true)] {
            let mut client = new_deflater(MAX_WINDOW_BITS);
            super::deflate(&mut client, b"", &vec![0; len], &mut payload).unwrap();
            let inflated = deflate.inflate(Kind::Binary, payload.filled(), len).unwrap();
            let reserved = RESERVED * CONTEXTS_MEMORY - pool.reserve.left();
            assert_eq!(reserved, if is_large { 0 } else { CONTEXTS_MEMORY });
            let charged = (1 << 30) - budget.left() - INFLATER_MEMORY - HISTORY;
            // Includes the extra byte that detects an oversized message.
            assert_eq!(charged, if is_large { CONTEXTS_MEMORY + 2 } else { 0 });
            drop(inflated);
        }
    }

    #[test]
    fn after_a_reply_that_did_not_fit_the_next_one_refers_to_nothing() {
        let budget = Arc::new(Budget::new(4 << 20));
        let parameters = Parameters::default();
        let pool = Arc::new(Pool::new(Arc::clone(&budget)));
        let mut deflate = PerMessageDeflate::new(parameters, pool);
        let mut client = new_deflater(MAX_WINDOW_BITS);
        let mut random = 1_u32;
        let mut noise = |len: usize, bits: u32| -> Vec<u8> {
            let bytes = (0..len).map(|_| {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (random >> (32 - bits)) as u8
            });
            bytes.collect()
        };
        let (large, small) = (noise(200_000, 2), noise(1000, 8));
        let mut payload = Buffer::new(Arc::clone(&budget));
        let mut send = |deflate: &mut PerMessageDeflate, message: &[u8]| {
            super::deflate(&mut client, b"", message, &mut payload).unwrap();
            let inflated = deflate.inflate(Kind::Binary, payload.filled(), message.len()).unwrap();
            assert!(inflated.message() == message);
            inflated
        };
        let inflated = send(&mut deflate, &large);
        let mut too_small = Buffer::new(Arc::new(Budget::new(0)));
        assert_eq!(deflate.deflate(b"", inflated, &mut too_small), Encoding::Plain);
        assert!(too_small.filled() == large);
        let mut out = Buffer::new(Arc::clone(&budget));
        let mut reader = PerMessageDeflate::new(parameters, Arc::clone(&deflate.pool));
        // Nor does the deflater, which had begun.
        let inflated = send(&mut deflate, &large);
        assert_eq!(deflate.deflate(b"", inflated, &mut out), Encoding::Deflated);
        let read = reader.inflate(Kind::Binary, out.filled(), large.len()).unwrap();
        assert!(read.message() == large);
        let mut first = Vec::new();
        for _ in 0..2 {
            let inflated = send(&mut deflate, &small);
            assert_eq!(deflate.deflate(b"", inflated, &mut out), Encoding::Deflated);
            if first.is_empty() {
                first = out.filled().to_vec();
            }
            // By the client's context. It has not received the reply that did not fit.
            let read = reader.inflate(Kind::Binary, out.filled(), small.len()).unwrap();
            assert!(read.message() == small);
        }
        // The first one stands alone, and the second one refers to it.
        assert!(first.len() >= 1000 && out.filled().len() < 50, "{}", out.filled().len());
    }
}
