//! The data of round trips: bytes that compress well or badly, the same in each run.

use crate::app::cases::payload::Payload;

/// A kind of data. The compression ratios are for messages of 128 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// A pattern that is the same in each message.
    Repeated(&'static [u8]),
    /// Records that differ little: 4 %.
    Json,
    /// Noise of less than 8 bits per byte: 85 %.
    Picture,
    /// Words: 39 %.
    Prose,
    /// Table rows with two-byte characters: 5.5 %.
    Html,
    /// Noise mixed with words: 76 %.
    Document,
    /// Noise: 100 %.
    Noise,
}

impl Data {
    /// The message of a round, of `size` bytes. HTML may have one byte less, since no character is cut.
    pub fn message(self, round: u32, size: usize) -> Payload {
        if let Data::Repeated(pattern) = self {
            return Payload::repeated(pattern, size);
        }
        let mut random = Random::new(round);
        let mut message = Vec::with_capacity(size + 256);
        while message.len() < size {
            self.append_part(&mut random, &mut message);
        }
        message.truncate(size);
        if let (Data::Html, Err(error)) = (self, str::from_utf8(&message)) {
            message.truncate(error.valid_up_to());
        }
        message.into()
    }

    fn append_part(self, random: &mut Random, out: &mut Vec<u8>) {
        let text = match self {
            Data::Repeated(pattern) => return out.extend_from_slice(pattern),
            Data::Picture => return out.push(random.below(110) as u8),
            Data::Noise => return out.push(random.below(256) as u8),
            Data::Document if random.below(42) > 0 => return out.push(random.below(256) as u8),
            Data::Document => " 0 obj << /Type".into(),
            Data::Json => format!(
                "{{\"number\": {}, \"unit\": \"celsius\", \"state\": \"{}\", \"values\": [0, 1, 1, 2, 3, 5]}},\n",
                random.below(100),
                random.word(8),
            ),
            Data::Html => format!(
                "<tr class=\"row\"><td class=\"größe\">{}</td><td class=\"name\">{}</td></tr>\n",
                random.below(400),
                random.word(30),
            ),
            Data::Prose => random.word(1800) + " ",
        };
        out.extend_from_slice(text.as_bytes());
    }
}

/// Marsaglia's xorshift.
struct Random(u32);

impl Random {
    fn new(seed: u32) -> Self {
        // Xorshift stays at zero forever, and similar seeds would begin alike.
        Random(seed.wrapping_mul(0x9E37_79B9) | 1)
    }

    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        ((u64::from(self.0) * u64::from(limit)) >> 32) as u32
    }

    /// One of the first `words` words. The earlier a word, the shorter and more frequent it is.
    fn word(&mut self, words: u32) -> String {
        let mut number = self.below(words).min(self.below(words));
        let mut word = String::new();
        loop {
            let syllable = number % 80;
            word.push(char::from(b"bdfghklmnprstvwz"[syllable as usize % 16]));
            word.push(char::from(b"aeiou"[syllable as usize / 16]));
            number /= 80;
            if number == 0 {
                return word;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use zlib_rs::{Deflate, DeflateFlush};

    use super::*;

    /// The compressed size in per mille.
    fn ratio(message: &[u8]) -> usize {
        let mut out = vec![0; 2 * message.len()];
        let mut deflate = Deflate::new(6, false, 15);
        deflate.compress(message, &mut out, DeflateFlush::Finish).unwrap();
        1000 * deflate.total_out() as usize / message.len()
    }

    #[test]
    fn each_kind_compresses_as_it_says() {
        for (data, expected) in [
            (Data::Json, 40),
            (Data::Picture, 850),
            (Data::Prose, 390),
            (Data::Html, 55),
            (Data::Document, 760),
            (Data::Noise, 1000),
        ] {
            let ratio = ratio(&data.message(7, 128 * 1024).to_vec());
            assert!(ratio.abs_diff(expected) <= expected / 10, "{data:?}: {ratio}");
        }
    }

    #[test]
    fn a_message_has_its_size_and_differs_from_the_one_before() {
        for data in [Data::Json, Data::Picture, Data::Prose, Data::Html, Data::Document] {
            for size in [16, 64, 100_000] {
                let [one, two] = [1, 2].map(|round| data.message(round, size));
                assert!(one != two || size == 16, "{data:?} of {size}");
                assert_eq!(one, data.message(1, size));
                let is_cut = data == Data::Html && one.len() + 1 == size;
                assert!(one.len() == size || is_cut, "{data:?} of {size}: {}", one.len());
            }
        }
    }
}
