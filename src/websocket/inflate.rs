//! Inflates a message (RFC 7692 §7.2.2), with limits on its size and on the work.

use zlib_rs::{Inflate, InflateFlush, Status};

use crate::buffer::{Buffer, Charge, OverBudget, UNMETERED};
use crate::websocket::close::{self, CloseFrame};
use crate::websocket::error::ProtocolError;
use crate::websocket::message::{Kind, check_utf8};

/// The base-2 logarithm of the largest window. All inflaters use it, since it also suits smaller
/// windows.
pub(super) const MAX_WINDOW_BITS: u8 = 15;

/// The end of each message, which its sender removes: the length of an empty block (§7.2.1).
pub(super) const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// A message that is being inflated.
pub(super) struct Inflating<'m> {
    pub(super) context: &'m mut Inflate,
    pub(super) kind: Kind,
    pub(super) max_size: usize,
    pub(super) message: &'m mut Buffer,
    /// The charge for the contexts. A message that becomes large moves it to the budget that its own
    /// memory is charged to.
    pub(super) charge: &'m mut Charge,
    /// The bytes of a text that are known to be UTF-8.
    pub(super) checked: usize,
}

impl Inflating<'_> {
    /// Inflates a whole message.
    ///
    /// # Errors
    ///
    /// The close frame for invalid or incomplete DEFLATE data, text that is not UTF-8, a message that is
    /// too big or takes too much work, or a lack of memory. Each is reported as soon as it is detected.
    pub(super) fn run(&mut self, mut payload: &[u8]) -> Result<(), CloseFrame> {
        /// The maximum number of streams. Each costs a copy of the window, and may have only two bytes.
        const MAX_STREAMS: usize = 100;
        /// The maximum number of blocks. Reading the codes of an empty block takes about a microsecond.
        const MAX_BLOCKS: usize = 16 * 1024;
        /// A message may have one more block for each of this many bytes, inflated.
        const BYTES_PER_BLOCK: usize = 64;
        // A valid message is never empty: it keeps at least the header of the block whose length was
        // removed.
        if payload.is_empty() {
            return Err(ProtocolError::InvalidDeflate.into());
        }
        let small = self.message.reserve(UNMETERED.min(self.max_len()));
        small.map_err(|OverBudget| close::OVER_BUDGET)?;
        let (mut streams, mut blocks) = (1, 0);
        while !payload.is_empty() {
            // At the end of the payload, a final block needs no other stream.
            if self.block(&mut payload)? == Status::StreamEnd && !payload.is_empty() {
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

    /// Inflates up to the end of a block, of a stream, or of `input`, and advances `input`.
    fn block(&mut self, input: &mut &[u8]) -> Result<Status, CloseFrame> {
        /// Small enough to be still in the CPU cache when it is checked.
        const PIECE: usize = 64 * 1024;
        loop {
            let left = self.max_len() - self.message.filled().len();
            // A full message grows only for another byte: one of 64 KiB just fits into its buffer.
            let mut next = [0];
            let is_full = self.message.spare_mut().is_empty();
            let spare = if is_full { &mut next } else { self.message.spare_mut() };
            let room_len = spare.len().min(left).min(PIECE);
            let (read, written) = (self.context.total_in(), self.context.total_out());
            let status = self
                .context
                .decompress(input, &mut spare[..room_len], InflateFlush::Block)
                .map_err(|_| ProtocolError::InvalidDeflate)?;
            let written = (self.context.total_out() - written) as usize;
            *input = &input[(self.context.total_in() - read) as usize..];
            if is_full && written > 0 {
                self.grow().map_err(|OverBudget| close::OVER_BUDGET)?;
                self.message.spare_mut()[..written].copy_from_slice(&next);
            }
            self.message.advance(written);
            if self.message.filled().len() > self.max_size {
                let limit = self.max_size;
                let size = limit as u64 + 1;
                return Err(ProtocolError::MessageTooBig { size, limit }.into());
            }
            check_utf8(self.kind, self.message.filled(), &mut self.checked, false)?;
            // Output can be pending only if the room was filled.
            if status == Status::StreamEnd || written < room_len {
                return Ok(status);
            }
        }
    }

    /// The limit plus one byte, which detects that the limit is exceeded.
    fn max_len(&self) -> usize {
        self.max_size.saturating_add(1)
    }

    fn grow(&mut self) -> Result<(), OverBudget> {
        // This comes first, so that small messages have the reserve while this thread waits for the
        // kernel.
        self.charge.move_to(self.message.budget());
        self.message.reserve(self.max_len())?;
        self.message.charge_ahead()
    }

    /// Begins a new stream. It may refer to this message but not to earlier ones, since the client's
    /// encoder has ended its stream, too.
    fn restart(&mut self) -> Result<(), ProtocolError> {
        const MAX_WINDOW: usize = 1 << MAX_WINDOW_BITS;
        self.context.reset(false);
        let message = self.message.filled();
        self.context
            .set_dictionary(&message[message.len().saturating_sub(MAX_WINDOW)..])
            .map_err(|_| ProtocolError::InvalidDeflate)?;
        Ok(())
    }

    /// Inflates the tail. If the tail does not complete the last block, or produces output, the message
    /// was cut.
    fn end(&mut self) -> Result<(), CloseFrame> {
        // The byte after the tail is read only inside a block.
        let [a, b, c, d] = TAIL;
        let tail = [a, b, c, d, 0x00];
        let mut rest = &tail[..];
        let len = self.message.filled().len();
        match self.block(&mut rest)? {
            // §7.2.3.4: the last block is a final one, and needs no tail.
            Status::StreamEnd if rest.len() == tail.len() => self.restart()?,
            _ if rest.len() == 1 && self.message.filled().len() == len => {}
            _ => return Err(ProtocolError::InvalidDeflate.into()),
        }
        Ok(())
    }
}
