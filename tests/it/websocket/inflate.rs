//! DEFLATE written straight from RFC 1951, as slow as it is plain. It shares no code with the server, and
//! tells how far back the data refers.

/// The data inflated, and the largest distance in it. It ends with its final block.
pub fn inflate(data: &[u8]) -> (Vec<u8>, usize) {
    let mut bits = Bits { data, at: 0 };
    let (mut out, mut farthest) = (Vec::new(), 0);
    loop {
        let is_final = bits.take(1) == 1;
        match bits.take(2) {
            0 => {
                bits.at = bits.at.next_multiple_of(8);
                let (len, complement) = (bits.take(16), bits.take(16));
                assert_eq!(len, !complement & 0xFFFF, "§3.2.4");
                out.extend((0..len).map(|_| bits.take(8) as u8));
            }
            1 => {
                let lens = |symbol| match symbol {
                    144..256 => 9,
                    256..280 => 7,
                    _ => 8,
                };
                let literals = Code::new(&(0..288).map(lens).collect::<Vec<_>>());
                block(&mut bits, &literals, &Code::new(&[5; 30]), &mut out, &mut farthest);
            }
            2 => {
                let (literals, distances) = dynamic_codes(&mut bits);
                block(&mut bits, &literals, &distances, &mut out, &mut farthest);
            }
            _ => panic!("§3.2.3: reserved"),
        }
        if is_final {
            return (out, farthest);
        }
    }
}

struct Bits<'d> {
    data: &'d [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> usize {
        (0..count).fold(0, |number, place| {
            let bit = self.data[self.at / 8] >> (self.at % 8) & 1;
            self.at += 1;
            number | usize::from(bit) << place
        })
    }
}

/// A Huffman code (§3.2.2): of each length, the first code and its symbols in order.
struct Code(Vec<(usize, Vec<usize>)>);

impl Code {
    fn new(lens: &[usize]) -> Self {
        let mut first = 0;
        Code(
            (1..16)
                .map(|len| {
                    let symbols: Vec<_> = (0..lens.len()).filter(|&at| lens[at] == len).collect();
                    let row = (first, symbols);
                    first = (first + row.1.len()) << 1;
                    row
                })
                .collect(),
        )
    }

    fn decode(&self, bits: &mut Bits) -> usize {
        let mut code = 0;
        for (first, symbols) in &self.0 {
            code = code << 1 | bits.take(1);
            if let Some(&symbol) = code.checked_sub(*first).and_then(|at| symbols.get(at)) {
                return symbol;
            }
        }
        panic!("no such code")
    }
}

/// §3.2.7.
fn dynamic_codes(bits: &mut Bits) -> (Code, Code) {
    const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    let (literals, distances) = (bits.take(5) + 257, bits.take(5) + 1);
    let mut lens = [0; 19];
    let count = bits.take(4) + 4;
    ORDER[..count].iter().for_each(|&at| lens[at] = bits.take(3));
    let code = Code::new(&lens);
    let mut lens: Vec<usize> = Vec::new();
    while lens.len() < literals + distances {
        let (len, times) = match code.decode(bits) {
            16 => (*lens.last().unwrap(), 3 + bits.take(2)),
            17 => (0, 3 + bits.take(3)),
            18 => (0, 11 + bits.take(7)),
            len => (len, 1),
        };
        lens.extend(vec![len; times]);
    }
    (Code::new(&lens[..literals]), Code::new(&lens[literals..]))
}

/// §3.2.5.
fn block(
    bits: &mut Bits,
    literals: &Code,
    distances: &Code,
    out: &mut Vec<u8>,
    farthest: &mut usize,
) {
    loop {
        let symbol = literals.decode(bits);
        let len = match symbol {
            0..256 => {
                out.push(symbol as u8);
                continue;
            }
            256 => return,
            257..265 => symbol - 254,
            265..285 => {
                let extra = (symbol - 261) / 4;
                3 + ((4 + (symbol - 265) % 4) << extra) + bits.take(extra)
            }
            _ => 258,
        };
        let distance = match distances.decode(bits) {
            symbol @ 0..4 => symbol + 1,
            symbol => {
                let extra = symbol / 2 - 1;
                1 + ((2 + symbol % 2) << extra) + bits.take(extra)
            }
        };
        *farthest = distance.max(*farthest);
        (0..len).for_each(|_| out.push(out[out.len() - distance]));
    }
}
