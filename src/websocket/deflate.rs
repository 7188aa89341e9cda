//! permessage-deflate: messages inflated and deflated (RFC 7692).
//!
//! A context is what one direction needs to compress or to decompress: the window and, to compress, the
//! tables that find its bytes again. Without context takeover each message begins with a fresh one, so
//! that the contexts of a small [`Pool`] serve all clients. With it a client has its own.

use std::mem;
use std::num::NonZeroUsize;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush, Status};

use crate::buffer::{Budget, Buffer, Charge, OverBudget, UNMETERED};
use crate::websocket::close::{self, CloseFrame};
use crate::websocket::error::ProtocolError;
use crate::websocket::message::{Kind, check_utf8};
use crate::websocket::negotiation::Parameters;

/// What the sender leaves out at the end of each message: the length of an empty block (§7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// An empty final block.
const FINAL_BLOCK: [u8; 5] = [0x01, 0x00, 0x00, 0xFF, 0xFF];

/// The largest window, as the base-2 logarithm of its bytes. Inflaters always have it: it serves every
/// smaller one.
const MAX_WINDOW_BITS: u8 = 15;

/// How far back compressed data may refer, in bytes.
const MAX_WINDOW: usize = 1 << MAX_WINDOW_BITS;

/// How hard the compressor looks for repetitions, of 9. For an echo the time counts: level 3 takes two to
/// four times as long, for a quarter less bytes (docs/performance.md).
const LEVEL: i32 = 1;

/// The memory of an inflater, in bytes.
const INFLATER_MEMORY: usize = 48 * 1024;

/// What all clients share to inflate and to deflate a message: the memory that it is inflated to, and the
/// contexts for messages which are compressed on their own.
///
/// There should be as many as cores, since more are not faster. A client's thread holds one only while
/// it computes, never while it waits for its peer, so that thousands of clients that send at once need
/// the memory of a few. The wait for a free one is the time that the messages before it take to
/// compute: milliseconds each for the largest. A lock and a condition variable do,
/// because taking one out takes nanoseconds and inflating a message microseconds.
pub struct Pool {
    free: Mutex<Vec<Contexts>>,
    returned: Condvar,
    budget: Arc<Budget>,
}

/// Each context is made when it is first used, and stays.
struct Contexts {
    inflater: Option<Inflate>,
    /// With the bits of its window. A client that asked for another window gets a new one.
    deflater: Option<(u8, Deflate)>,
    /// The message, inflated. Up to [`UNMETERED`] its memory stays.
    message: Buffer,
}

/// A message that was inflated. What it was taken from a [`Pool`] with goes back when it is dropped.
pub struct Inflated {
    contexts: Contexts,
    pool: Arc<Pool>,
    compressed_size: usize,
}

impl Pool {
    /// A pool of `size`, which have no memory before they are used. What they hold above [`UNMETERED`]
    /// is charged to `budget`, and so are contexts that clients have of their own.
    pub fn new(size: NonZeroUsize, budget: Arc<Budget>) -> Self {
        let free = (0..size.get()).map(|_| Contexts::new(&budget)).collect();
        Pool { free: Mutex::new(free), returned: Condvar::new(), budget }
    }

    fn take(self: &Arc<Self>) -> Inflated {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            // The last one that was returned, whose memory is likely still in the cache.
            if let Some(contexts) = free.pop() {
                return Inflated { contexts, pool: Arc::clone(self), compressed_size: 0 };
            }
            free = self.returned.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Inflated {
    pub fn message(&self) -> &[u8] {
        self.contexts.message.filled()
    }

    /// How many bytes the message had before.
    pub fn compressed_size(&self) -> usize {
        self.compressed_size
    }
}

impl Drop for Inflated {
    fn drop(&mut self) {
        let mut contexts = mem::replace(&mut self.contexts, Contexts::new(&self.pool.budget));
        contexts.message.clear();
        if contexts.message.capacity() > UNMETERED {
            contexts.message.release();
        }
        self.pool.free.lock().unwrap_or_else(PoisonError::into_inner).push(contexts);
        self.pool.returned.notify_one();
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

/// A window of 9 bits does for 8 as well: the compressor refers back at most 262 bytes less than its
/// window is long, which are 250.
fn new_deflater(bits: u8) -> Deflate {
    Deflate::new(LEVEL, false, bits.max(9))
}

/// The memory of a deflater, in bytes: tables, the window twice with its index, and what is pending.
fn deflater_memory(bits: u8) -> usize {
    132 * 1024 + (4 << bits.max(9)) + 7 * 16 * 1024
}

/// A context that one client has to itself.
struct Own<T> {
    context: T,
    _charge: Charge,
}

/// One client's permessage-deflate.
pub struct PerMessageDeflate {
    parameters: Parameters,
    pool: Arc<Pool>,
    /// Only with context takeover.
    inflater: Option<Box<Own<Inflate>>>,
    /// Only with context takeover.
    deflater: Option<Box<Own<Deflate>>>,
    total: Sizes,
}

/// What messages and their replies have in bytes, before and after compression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    pub plain: u64,
    pub compressed: u64,
}

impl PerMessageDeflate {
    /// What both sides agreed to, and what it is computed with.
    pub fn new(parameters: Parameters, pool: Arc<Pool>) -> Self {
        PerMessageDeflate {
            parameters,
            pool,
            inflater: None,
            deflater: None,
            total: Sizes::default(),
        }
    }

    /// Inflates a whole message, which may have `max_size` bytes then.
    ///
    /// # Errors
    ///
    /// The close frame for data that is not DEFLATE, text that is not UTF-8, a message that is too
    /// big, or memory that is short. Each is found as soon as the bytes that show it are inflated.
    pub(super) fn inflate(
        &mut self,
        kind: Kind,
        payload: &[u8],
        max_size: usize,
    ) -> Result<Inflated, CloseFrame> {
        let mut inflated = self.pool.take();
        inflated.compressed_size = payload.len();
        let Contexts { inflater: shared, message, .. } = &mut inflated.contexts;
        message.reserve(UNMETERED.min(max_size)).map_err(|OverBudget| close::OVER_BUDGET)?;
        let mut inflating = Inflating { kind, message, max_size, checked: 0 };
        if self.parameters.client_no_context_takeover {
            let context = shared.get_or_insert_with(new_inflater);
            context.reset(false);
            let ended = inflating.message(context, payload)?;
            inflating.finish(context, ended)?;
        } else {
            let own = if let Some(own) = &mut self.inflater {
                own
            } else {
                let charge = self.pool.budget.charge(INFLATER_MEMORY);
                let charge = charge.map_err(|OverBudget| close::OVER_BUDGET)?;
                self.inflater.insert(Box::new(Own { context: new_inflater(), _charge: charge }))
            };
            if let Ended::FinalBlock = inflating.message(&mut own.context, payload)? {
                inflating.restart(&mut own.context)?;
            }
        }
        self.count(inflated.message().len(), payload.len());
        Ok(inflated)
    }

    /// Deflates `prefix` and the message as one message, to `out`.
    ///
    /// # Errors
    ///
    /// [`OverBudget`], and `out` is the message as it is.
    pub(super) fn deflate(
        &mut self,
        prefix: &[u8],
        mut inflated: Inflated,
        out: &mut Buffer,
    ) -> Result<(), OverBudget> {
        let deflated = self.try_deflate(prefix, &mut inflated.contexts, out);
        if deflated.is_ok() {
            self.count(prefix.len() + inflated.message().len(), out.filled().len());
        } else {
            out.release();
            mem::swap(out, &mut inflated.contexts.message);
        }
        deflated
    }

    /// Deflates a message that is no reply.
    ///
    /// # Errors
    ///
    /// [`OverBudget`], and `out` means nothing.
    pub(super) fn deflate_message(
        &mut self,
        message: &[u8],
        out: &mut Buffer,
    ) -> Result<(), OverBudget> {
        let mut taken = self.pool.take();
        // As the prefix of an empty message.
        let deflated = self.try_deflate(message, &mut taken.contexts, out);
        self.count(message.len(), out.filled().len());
        deflated
    }

    fn try_deflate(
        &mut self,
        prefix: &[u8],
        contexts: &mut Contexts,
        out: &mut Buffer,
    ) -> Result<(), OverBudget> {
        let bits = self.parameters.server_max_window_bits.unwrap_or(MAX_WINDOW_BITS);
        let Contexts { deflater: shared, message, .. } = contexts;
        if self.parameters.server_no_context_takeover {
            shared.take_if(|(its_bits, _)| *its_bits != bits);
            let (_, deflater) = shared.get_or_insert_with(|| (bits, new_deflater(bits)));
            deflater.reset();
            return deflate(deflater, prefix, message.filled(), out);
        }
        // Taken out, since one that fails has to go: it knows a message that the client does not.
        let mut own = if let Some(own) = self.deflater.take() {
            own
        } else {
            let charge = self.pool.budget.charge(deflater_memory(bits))?;
            Box::new(Own { context: new_deflater(bits), _charge: charge })
        };
        deflate(&mut own.context, prefix, message.filled(), out)?;
        self.deflater = Some(own);
        Ok(())
    }

    fn count(&mut self, plain: usize, compressed: usize) {
        self.total.plain += plain as u64;
        self.total.compressed += compressed as u64;
    }

    /// The sizes of all compressed messages, in both directions.
    pub fn total(&self) -> Sizes {
        self.total
    }

    /// Gives up the contexts that the protocol lets go: a new deflater refers to nothing earlier, which
    /// is always valid. What the client's next message refers to has to stay.
    pub(super) fn release_deflater(&mut self) {
        self.deflater = None;
    }
}

/// How the data of a message ended.
#[derive(Clone, Copy)]
enum Ended {
    /// After a block that another one may follow.
    Block,
    /// Right after a final block (§7.2.3.4), and nothing may follow it in the same stream.
    FinalBlock,
}

/// A message that is being inflated.
struct Inflating<'m> {
    kind: Kind,
    message: &'m mut Buffer,
    max_size: usize,
    /// How much of a text is known to be UTF-8, in bytes.
    checked: usize,
}

impl Inflating<'_> {
    /// Inflates a whole message (§7.2.2).
    fn message(&mut self, inflater: &mut Inflate, payload: &[u8]) -> Result<Ended, CloseFrame> {
        /// How often a message may begin a new stream. Each costs a copy of the window, which takes as
        /// long as some KiB of the message, but two bytes are enough to ask for it.
        const MAX_STREAMS: usize = 16 * 1024;
        // The header of the block whose length is left out takes at least a bit.
        if payload.is_empty() {
            return Err(ProtocolError::InvalidDeflate.into());
        }
        let (mut ended, mut rest) = self.stream(inflater, payload)?;
        let mut streams = 1;
        while !rest.is_empty() {
            if streams == MAX_STREAMS {
                return Err(ProtocolError::InvalidDeflate.into());
            }
            streams += 1;
            self.restart(inflater)?;
            (ended, rest) = self.stream(inflater, rest)?;
        }
        if let Ended::Block = ended {
            let (Ended::Block, _) = self.stream(inflater, &TAIL)? else {
                return Err(ProtocolError::InvalidDeflate.into());
            };
        }
        check_utf8(self.kind, self.message.filled(), &mut self.checked, true)?;
        Ok(ended)
    }

    /// Begins a new stream that may refer to what is inflated so far. What was inflated before this
    /// message is lost for it: the client's encoder has ended its stream, too.
    fn restart(&mut self, inflater: &mut Inflate) -> Result<(), CloseFrame> {
        inflater.reset(false);
        let message = self.message.filled();
        inflater
            .set_dictionary(&message[message.len().saturating_sub(MAX_WINDOW)..])
            .map_err(|_| ProtocolError::InvalidDeflate)?;
        Ok(())
    }

    /// Refuses a message that breaks off inside a block: a final block can't follow there.
    fn finish(&mut self, inflater: &mut Inflate, ended: Ended) -> Result<(), CloseFrame> {
        let len = self.message.filled().len();
        if let Ended::Block = ended {
            let (Ended::FinalBlock, []) = self.stream(inflater, &FINAL_BLOCK)? else {
                return Err(ProtocolError::InvalidDeflate.into());
            };
        }
        if self.message.filled().len() == len {
            Ok(())
        } else {
            Err(ProtocolError::InvalidDeflate.into())
        }
    }

    /// Inflates `input` up to the end of its stream, and returns what is behind it.
    fn stream<'i>(
        &mut self,
        inflater: &mut Inflate,
        mut input: &'i [u8],
    ) -> Result<(Ended, &'i [u8]), CloseFrame> {
        /// Few enough to be still in the processor's cache when they are checked.
        const PIECE: usize = 64 * 1024;
        loop {
            let left = self.max_size - self.message.filled().len();
            let spare = self.message.spare_mut();
            let spare_len = spare.len().min(left).min(PIECE);
            // Whether there is more than the memory or the limit takes shows only in what is inflated.
            let mut beyond = [0];
            let room = if spare_len == 0 { &mut beyond[..] } else { &mut spare[..spare_len] };
            let room_len = room.len();
            let (read, written) = (inflater.total_in(), inflater.total_out());
            let status = inflater
                .decompress(input, room, InflateFlush::NoFlush)
                .map_err(|_| ProtocolError::InvalidDeflate)?;
            let read = (inflater.total_in() - read) as usize;
            let written = (inflater.total_out() - written) as usize;
            input = &input[read..];
            if written > left {
                let limit = self.max_size;
                let size = limit as u64 + 1;
                return Err(ProtocolError::MessageTooBig { size, limit }.into());
            }
            if written > spare_len {
                self.grow()?;
                self.message.spare_mut()[..1].copy_from_slice(&beyond);
            }
            self.message.advance(written);
            check_utf8(self.kind, self.message.filled(), &mut self.checked, false)?;
            match status {
                Status::StreamEnd => return Ok((Ended::FinalBlock, input)),
                // Where room was left, nothing is pending.
                _ if input.is_empty() && written < room_len => return Ok((Ended::Block, input)),
                _ if read == 0 && written == 0 => {
                    return Err(ProtocolError::InvalidDeflate.into());
                }
                _ => {}
            }
        }
    }

    fn grow(&mut self) -> Result<(), CloseFrame> {
        let grown = self.message.reserve(self.max_size);
        let grown = grown.and_then(|()| self.message.charge_ahead());
        grown.map_err(|OverBudget| close::OVER_BUDGET)
    }
}

/// Deflates `prefix` and `message` as one message, to `out` (§7.2.1).
fn deflate(
    deflater: &mut Deflate,
    prefix: &[u8],
    message: &[u8],
    out: &mut Buffer,
) -> Result<(), OverBudget> {
    /// With less, a flush that fills the room exactly would be written again.
    const MIN_ROOM: usize = 6;
    let len = prefix.len() + message.len();
    out.clear();
    // More than any level makes of bytes that can't be compressed.
    out.reserve(len + len / 8 + len / 64 + 64)?;
    if len == 0 {
        // §7.2.3.6. A compressor would write nothing for a second empty message.
        out.spare_mut()[0] = 0x00;
        out.advance(1);
        return Ok(());
    }
    for (mut input, flush) in [(prefix, DeflateFlush::NoFlush), (message, DeflateFlush::SyncFlush)]
    {
        loop {
            if out.spare_mut().len() < MIN_ROOM {
                out.charge_ahead()?;
            }
            let room = out.spare_mut();
            let room_len = room.len();
            let (read, written) = (deflater.total_in(), deflater.total_out());
            deflater.compress(input, room, flush).map_err(|_| OverBudget)?;
            input = &input[(deflater.total_in() - read) as usize..];
            let written = (deflater.total_out() - written) as usize;
            out.advance(written);
            if written < room_len {
                break;
            }
        }
    }
    debug_assert!(out.filled().ends_with(&TAIL));
    out.truncate(out.filled().len() - TAIL.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_reply_that_did_not_fit_the_next_one_refers_to_nothing() {
        let budget = Arc::new(Budget::new(1 << 20));
        let parameters = Parameters::default();
        let pool = Arc::new(Pool::new(NonZeroUsize::MIN, Arc::clone(&budget)));
        let mut deflate = PerMessageDeflate::new(parameters, pool);
        let mut client = new_deflater(MAX_WINDOW_BITS);
        let mut random = 1_u32;
        let noise: Vec<_> = (0..100_000)
            .map(|_| {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (random >> 24) as u8
            })
            .collect();
        let mut payload = Buffer::new(Arc::clone(&budget));
        let mut send = |deflate: &mut PerMessageDeflate, message: &[u8]| {
            super::deflate(&mut client, b"", message, &mut payload).unwrap();
            let inflated = deflate.inflate(Kind::Binary, payload.filled(), message.len()).unwrap();
            assert!(inflated.message() == message);
            inflated
        };
        let inflated = send(&mut deflate, &noise);
        let mut too_small = Buffer::new(Arc::new(Budget::new(0)));
        assert_eq!(deflate.deflate(b"", inflated, &mut too_small), Err(OverBudget));
        assert!(too_small.filled() == noise);
        let mut out = Buffer::new(Arc::clone(&budget));
        let mut first = Vec::new();
        for _ in 0..2 {
            let inflated = send(&mut deflate, &noise[..1000]);
            deflate.deflate(b"", inflated, &mut out).unwrap();
            if first.is_empty() {
                first = out.filled().to_vec();
            }
        }
        // The first one stands alone, and the second one refers to it.
        assert!(first.len() >= 1000 && out.filled().len() < 50, "{}", out.filled().len());
    }
}
