//! The offset of a payload in its page at which the kernel copies it at full speed.
//!
//! The kernel copies between buffers and sockets with `rep movsb`. Some processors (AMD Zen 4 among
//! them) run it at a tenth of its speed if the destination is 1 to 15 bytes after the source, both
//! modulo a page. A header before the payload causes just such differences, because a socket that was
//! read empty puts the next bytes at the start of a page:
//!
//! ```text
//! receive   socket page │header│payload…        send   buffer           │payload…
//!           buffer          │payload…                  socket page │header│prefix│payload…
//! ```

/// The largest offset of a payload in its memory, in bytes.
pub const MAX_SHIFT: usize = 2 * STEP;

/// More than the range of slow differences.
const STEP: usize = 64;

const PAGE: usize = 4096;

/// Whether the kernel copies slowly between these addresses.
pub fn is_slow(source: usize, destination: usize) -> bool {
    (1..16).contains(&(destination.wrapping_sub(source) % PAGE))
}

/// The offset in bytes at which payloads should begin in the memory at `address`, a multiple of 16. Text
/// replies have a prefix of `prefix_len` bytes.
pub fn shift(address: usize, prefix_len: usize) -> usize {
    // Two positions are slow: after the start of a page, and after the end of the prefix. Each excludes
    // at most one of the three shifts.
    let shifts = [0, STEP, MAX_SHIFT];
    shifts.into_iter().find(|shift| is_fast(address + shift, prefix_len)).unwrap_or(0)
}

fn is_fast(begin: usize, prefix_len: usize) -> bool {
    // RFC 6455 §5.2: a header has 6, 8 or 14 bytes with a masking key, and 2, 4 or 10 without one. Input
    // may begin with a header. A payload that is sent in place from the input has a header of 8 or 14
    // bytes there.
    let receives = [0, 6, 8, 14].into_iter().all(|header| !is_slow(header, begin));
    let sends = |begin| {
        let heads = [2, 4, 10].into_iter().flat_map(|header| [header, header + prefix_len]);
        heads.into_iter().all(|head| !is_slow(begin, head))
    };
    receives && [0, 8, 14].into_iter().all(|header| sends(begin + header))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_each_address_there_is_a_fast_place_for_each_prefix() {
        for prefix_len in 0..=PAGE {
            for address in (0..PAGE).step_by(16) {
                let begin = address + shift(address, prefix_len);
                assert!(is_fast(begin, prefix_len), "{address} {prefix_len}");
            }
        }
    }
}
