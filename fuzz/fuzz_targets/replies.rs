//! However the network splits what a client sends, plain or compressed, the replies and the end are the
//! same. They are valid frames, and no more memory is held for them than the limits allow and than bytes
//! came.

#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use wsecho::buffer::{STEP, UNMETERED};
use wsecho::websocket::close::OVER_BUDGET;
use wsecho_fuzz::client::{ClientBytes, Splits};
use wsecho_fuzz::deflate::{Client, Compression, RSV1, inflated_messages, open};
use wsecho_fuzz::driver::{Closed, service};
use wsecho_fuzz::reference;

/// Never short of memory: a message that is split needs some, and another one may not.
const AMPLE: usize = 1 << 30;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    prefix: &'a str,
    /// In units of 8 bytes, so that limits go from nothing to beyond the largest message.
    max_message_size: u16,
    max_buffered: u16,
    splits: [Splits; 2],
    compression: Option<Compression>,
    bytes: ClientBytes,
}

fuzz_target!(|input: Input| {
    let mut bytes = input.bytes.0.clone();
    if let Some(compression) = &input.compression {
        let mut client = Client::new(compression);
        bytes = reference::frames(&bytes).flat_map(|frame| client.frame(frame)).collect();
    }
    let [(output, closed), (other_output, other_closed)] =
        input.splits.each_ref().map(|splits| input.converse(&bytes, AMPLE, splits));
    assert_eq!(closed, other_closed);
    // Not by assert_eq, which would print all of both.
    if output != other_output {
        let same = output.iter().zip(&other_output).take_while(|(one, two)| one == two).count();
        panic!("{} and {} bytes differ from {same} on", output.len(), other_output.len());
    }
    input.check(&output, closed.as_ref(), usize::MAX);

    if input.compression.is_none() {
        let max_buffered = usize::from(input.max_buffered) * 8;
        let (output, closed) = input.converse(&bytes, max_buffered, &input.splits[0]);
        input.check(&output, closed.as_ref(), UNMETERED + max_buffered);
        let is_short = bytes.len().min(input.max_message_size()) > UNMETERED + max_buffered;
        let is_refused = closed == Some(Closed::by_server(OVER_BUDGET));
        assert!(is_short || !is_refused, "memory is not short");
    }
});

impl Input<'_> {
    fn max_message_size(&self) -> usize {
        usize::from(self.max_message_size) * 8
    }

    /// What a client is sent for `bytes`, and how it ends.
    fn converse(
        &self,
        bytes: &[u8],
        max_buffered: usize,
        splits: &Splits,
    ) -> (Vec<u8>, Option<Closed>) {
        let mut service = service(self.max_message_size(), max_buffered);
        service.settings.prefix = self.prefix.into();
        let parameters = self.compression.as_ref().map(|compression| compression.parameters);
        let mut driver = open(&service, parameters);
        let mut came = 0;
        for piece in splits.split(bytes) {
            driver.receive(piece);
            came += piece.len();
            let charged = max_buffered - service.budget.left();
            let most = self.max_message_size().min(came + STEP).saturating_sub(UNMETERED);
            let is_right = charged <= most || parameters.is_some();
            assert!(is_right, "{charged} bytes are charged when {came} came");
            splits.pause(&mut driver);
        }
        let closed = driver.closed();
        let output = driver.take();
        drop(driver);
        assert_eq!(service.budget.left(), max_buffered, "memory is not given back");
        (output, closed)
    }

    /// Checks what was sent while no message could be larger than `limit`.
    fn check(&self, output: &[u8], closed: Option<&Closed>, limit: usize) {
        let parameters = self.compression.as_ref().map(|compression| compression.parameters);
        let messages = inflated_messages(output, parameters);
        let close = messages.last().filter(|(first, _)| *first == 0x8).map(|(_, payload)| payload);
        match (closed, close) {
            (None, None) => {}
            (Some(Closed::ByPeer(shown)), Some(payload)) => {
                let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code).to_string());
                assert!(shown.starts_with(&code.unwrap_or("no code".into())), "{shown}");
            }
            (Some(Closed::ByServer(expected)), Some(payload)) => assert_eq!(expected, payload),
            _ => panic!("the end is {closed:?}, and the close frame has {close:02X?}"),
        }
        for (first, payload) in &messages {
            let len = match first & !RSV1 {
                0x1 => payload.strip_prefix(self.prefix.as_bytes()).expect("the prefix").len(),
                0x2 => payload.len(),
                _ => continue,
            };
            assert!(len <= limit.min(self.max_message_size()), "a message of {len} bytes");
        }
    }
}
