//! A compressed message inflated (RFC 7692 §7.2.2), with bounds on what comes out and on the work.

use zlib_rs::{Inflate, InflateFlush, Status};

use crate::buffer::{Buffer, Charge, OverBudget, UNMETERED};
use crate::websocket::close::{self, CloseFrame};
use crate::websocket::error::ProtocolError;
use crate::websocket::message::{Kind, check_utf8};

/// The largest window, as the base-2 logarithm of its bytes. Inflaters always have it: it serves every
/// smaller one.
pub(super) const MAX_WINDOW_BITS: u8 = 15;

/// What the sender removes from the end of each message: the length of an empty block (§7.2.1).
pub(super) const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// A message that is being inflated.
pub(super) struct Inflating<'m> {
    pub(super) context: &'m mut Inflate,
    pub(super) kind: Kind,
    pub(super) max_size: usize,
    /// What is inflated.
    pub(super) message: &'m mut Buffer,
    /// For the contexts. A message that becomes large moves it to the budget of its memory.
    pub(super) charge: &'m mut Charge,
    /// How much of a text is known to be UTF-8, in bytes.
    pub(super) checked: usize,
}

impl Inflating<'_> {
    /// Inflates a whole message.
    ///
    /// # Errors
    ///
    /// The close frame for data that is not DEFLATE or breaks off, text that is not UTF-8, a message
    /// that is too big or takes too much work, or memory that is short. Each is found as soon as the bytes that
    /// show it are inflated.
    pub(super) fn run(&mut self, mut payload: &[u8]) -> Result<(), CloseFrame> {
        /// Each costs a copy of the window, and two bytes are enough to ask for it.
        const MAX_STREAMS: usize = 100;
        /// To read the codes of an empty block takes about a microsecond.
        const MAX_BLOCKS: usize = 16 * 1024;
        /// A large message may have a further block for so many bytes.
        const BYTES_PER_BLOCK: usize = 64;
        // The header of the block whose length is removed takes at least a bit.
        if payload.is_empty() {
            return Err(ProtocolError::InvalidDeflate.into());
        }
        let small = self.message.reserve(UNMETERED.min(self.max_len()));
        small.map_err(|OverBudget| close::OVER_BUDGET)?;
        let (mut streams, mut blocks) = (1, 0);
        while !payload.is_empty() {
            if let Status::StreamEnd = self.block(&mut payload)? {
                self.restart()?;
                streams += 1;
            }
            blocks += 1;
            let max_blocks = MAX_BLOCKS + self.message.filled().len() / BYTES_PER_BLOCK;
            if streams > MAX_STREAMS || blocks > max_blocks {
                return Err(ProtocolError::TooManyBlocks.into());
            }
        }
        self.end()?;
        Ok(check_utf8(self.kind, self.message.filled(), &mut self.checked, true)?)
    }

    /// Inflates up to the end of a block, of its stream, or of `input`, which is left with what follows.
    fn block(&mut self, input: &mut &[u8]) -> Result<Status, CloseFrame> {
        /// Few enough to be still in the processor's cache when they are checked.
        const PIECE: usize = 64 * 1024;
        loop {
            if self.message.spare_mut().is_empty() {
                self.grow().map_err(|OverBudget| close::OVER_BUDGET)?;
            }
            let left = self.max_len() - self.message.filled().len();
            let spare = self.message.spare_mut();
            let room_len = spare.len().min(left).min(PIECE);
            let (read, written) = (self.context.total_in(), self.context.total_out());
            let status = self
                .context
                .decompress(input, &mut spare[..room_len], InflateFlush::Block)
                .map_err(|_| ProtocolError::InvalidDeflate)?;
            let written = (self.context.total_out() - written) as usize;
            *input = &input[(self.context.total_in() - read) as usize..];
            self.message.advance(written);
            if self.message.filled().len() > self.max_size {
                let limit = self.max_size;
                let size = limit as u64 + 1;
                return Err(ProtocolError::MessageTooBig { size, limit }.into());
            }
            check_utf8(self.kind, self.message.filled(), &mut self.checked, false)?;
            // Where room is left, nothing is pending.
            if status == Status::StreamEnd || written < room_len {
                return Ok(status);
            }
        }
    }

    /// With room for a byte more than may come, which shows whether it does.
    fn max_len(&self) -> usize {
        self.max_size.saturating_add(1)
    }

    fn grow(&mut self) -> Result<(), OverBudget> {
        self.message.reserve(self.max_len())?;
        self.message.charge_ahead()?;
        self.charge.move_to(self.message.budget());
        Ok(())
    }

    /// Begins a new stream that may refer to what is inflated so far. What was inflated before this
    /// message is lost for it: the client's encoder has ended its stream, too.
    fn restart(&mut self) -> Result<(), ProtocolError> {
        const MAX_WINDOW: usize = 1 << MAX_WINDOW_BITS;
        self.context.reset(false);
        let message = self.message.filled();
        self.context
            .set_dictionary(&message[message.len().saturating_sub(MAX_WINDOW)..])
            .map_err(|_| ProtocolError::InvalidDeflate)?;
        Ok(())
    }

    /// Appends the tail, and refuses a message that it does not complete to whole blocks, or that has more
    /// in it: such a message was cut.
    fn end(&mut self) -> Result<(), CloseFrame> {
        // The byte after it is read only if the tail has ended inside a block.
        let [a, b, c, d] = TAIL;
        let tail = [a, b, c, d, 0x00];
        let mut rest = &tail[..];
        let len = self.message.filled().len();
        match self.block(&mut rest)? {
            // §7.2.3.4: a final block needs no tail.
            Status::StreamEnd if rest.len() == tail.len() => self.restart()?,
            _ if rest.len() == 1 && self.message.filled().len() == len => {}
            _ => return Err(ProtocolError::InvalidDeflate.into()),
        }
        Ok(())
    }
}
