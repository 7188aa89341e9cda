//! A conversation without a socket: bytes in, reply bytes out, in whatever pieces.

use std::sync::Arc;

use wsecho::buffer::Budget;
use wsecho::echo;
use wsecho::session::{Close, Session};

/// A session with a verbatim echo behind it, spoken to as the connection speaks to it.
pub struct Conversation {
    pub session: Session,
    pub replies: Vec<u8>,
    left: Vec<u8>,
    straight_above: usize,
}

/// Never read straight to the message, see [`Conversation::new`].
pub const NEVER: usize = usize::MAX;

/// A longer remainder would be a whole control frame, or more than a data frame's header.
const LONGEST_LEFT: usize = 2 + 4 + 125 - 1;

impl Conversation {
    /// A payload of which more than `straight_above` bytes are missing is read straight to its
    /// message, as far as the session has room for it; all else goes through the input.
    pub fn new(max_message_size: usize, budget: Arc<Budget>, straight_above: usize) -> Self {
        Conversation {
            session: Session::new(max_message_size, budget),
            replies: Vec::new(),
            left: Vec::new(),
            straight_above,
        }
    }

    /// What comes next on the wire.
    pub fn hear(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let read = match self.session.room(self.straight_above) {
                Some(room) => {
                    let read = room.len().min(bytes.len());
                    assert_ne!(read, 0, "no room for what is missing");
                    room[..read].copy_from_slice(&bytes[..read]);
                    self.session.filled(read);
                    read
                }
                None => {
                    self.left.extend(bytes);
                    bytes.len()
                }
            };
            bytes = &bytes[read..];
            self.reply();
        }
    }

    fn reply(&mut self) {
        let mut unread = self.left.as_mut_slice();
        while let Some(message) = self.session.next(&mut unread, &mut self.replies) {
            let rest = echo::reply(&message, "", &mut self.replies);
            self.replies.extend(rest);
        }
        let left = unread.len();
        assert!(left <= LONGEST_LEFT, "{left} bytes are left over");
        self.left.drain(..self.left.len() - left);
    }

    /// How it ended, if it did.
    pub fn end(&self) -> Option<&Close> {
        self.session.closed()
    }
}

/// A server's frame: the first byte as it is, any payload, not masked.
pub fn server_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(len as u8),
        len @ 126..=0xFFFF => {
            frame.push(126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}
