//! Writes captures in the pcapng format, so that Wireshark and tshark open them without any setting.
//!
//! Sources: "PCAP Next Generation (pcapng) Capture File Format" (IETF draft, opsawg) for the blocks, Wireshark's
//! `wsutil/exported_pdu_tlvs.h` for link type 252 (upper PDU): in front of each frame stands which dissector it is for and
//! between which addresses and ports it travelled. The ports matter: a Modbus dissector tells a query from a response by
//! which of the two is 502.

/// Link type "Wireshark upper PDU".
const UPPER_PDU: u16 = 252;

const SECTION: u32 = 0x0A0D_0D0A;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;

const BYTE_ORDER: u32 = 0x1A2B_3C4D;

/// Times count millionths of a second.
const MICROSECONDS: u8 = 6;

mod option {
    pub(super) const COMMENT: u16 = 1;
    pub(super) const NAME: u16 = 2;
    pub(super) const FLAGS: u16 = 2;
    pub(super) const TIME_RESOLUTION: u16 = 9;
}

mod tag {
    pub(super) const END: u16 = 0;
    pub(super) const DISSECTOR: u16 = 12;
    pub(super) const IPV4_SOURCE: u16 = 20;
    pub(super) const IPV4_DESTINATION: u16 = 21;
    pub(super) const PORT_TYPE: u16 = 24;
    pub(super) const SOURCE_PORT: u16 = 25;
    pub(super) const DESTINATION_PORT: u16 = 26;
}

/// Port type TCP.
const TCP: u32 = 2;

/// The port of the units, and one of the gateway's.
const UNITS: u32 = 502;
const GATEWAY: u32 = 49_152;

/// Documentation addresses that stand for the two ends where there are no real ones.
const GATEWAY_ADDRESS: [u8; 4] = [192, 0, 2, 1];
const UNITS_ADDRESS: [u8; 4] = [192, 0, 2, 2];

/// One frame of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Microseconds since 1970.
    pub micros: u64,
    /// Wireshark's name of the dissector, at most 64 characters: `mbrtu`, `mbtcp`, `data`.
    pub dissector: &'a str,
    /// Whether the gateway sent it.
    pub outbound: bool,
    /// Where the units are, if that is an IPv4 address.
    pub peer: Option<[u8; 4]>,
    /// The frame.
    pub bytes: &'a [u8],
    /// Shown beside it.
    pub comment: Option<&'a str>,
}

/// A whole file: one interface of this name with these frames.
pub fn file(interface: &str, packets: &[Packet<'_>]) -> Vec<u8> {
    let mut file = Vec::new();
    // Version 1.0, of unknown length.
    let section = [&BYTE_ORDER.to_le_bytes()[..], &[1, 0, 0, 0], &[0xFF; 8]].concat();
    block(&mut file, SECTION, &section);
    let mut description = [&UPPER_PDU.to_le_bytes()[..], &[0; 6]].concat();
    put_option(&mut description, option::NAME, interface.as_bytes());
    put_option(&mut description, option::TIME_RESOLUTION, &[MICROSECONDS]);
    put_option(&mut description, 0, &[]);
    block(&mut file, INTERFACE, &description);
    for packet in packets {
        block(&mut file, PACKET, &packet.body());
    }
    file
}

impl Packet<'_> {
    fn body(&self) -> Vec<u8> {
        let data = [&self.tags()[..], self.bytes].concat();
        let [high, low] = [self.micros >> 32, self.micros & 0xFFFF_FFFF].map(word);
        let length = word(u64::try_from(data.len()).unwrap_or(u64::MAX));
        let header = [0, high, low, length, length];
        let mut body: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
        body.extend(&data);
        pad(&mut body);
        if let Some(comment) = self.comment {
            put_option(&mut body, option::COMMENT, comment.as_bytes());
        }
        // The two lowest bits are the direction.
        put_option(&mut body, option::FLAGS, &if self.outbound { 2_u32 } else { 1 }.to_le_bytes());
        put_option(&mut body, 0, &[]);
        body
    }

    fn tags(&self) -> Vec<u8> {
        let units = self.peer.unwrap_or(UNITS_ADDRESS);
        let (from, to) = if self.outbound { (GATEWAY_ADDRESS, units) } else { (units, GATEWAY_ADDRESS) };
        let (source, destination) = if self.outbound { (GATEWAY, UNITS) } else { (UNITS, GATEWAY) };
        let mut tags = Vec::new();
        let mut name = self.dissector.as_bytes().to_vec();
        pad(&mut name);
        put_tag(&mut tags, tag::DISSECTOR, &name);
        put_tag(&mut tags, tag::IPV4_SOURCE, &from);
        put_tag(&mut tags, tag::IPV4_DESTINATION, &to);
        for (kind, number) in
            [(tag::PORT_TYPE, TCP), (tag::SOURCE_PORT, source), (tag::DESTINATION_PORT, destination)]
        {
            put_tag(&mut tags, kind, &number.to_be_bytes());
        }
        put_tag(&mut tags, tag::END, &[]);
        tags
    }
}

fn word(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn half(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

/// Blocks and options end at multiples of four bytes.
fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn block(file: &mut Vec<u8>, kind: u32, body: &[u8]) {
    let length = word(u64::try_from(body.len().next_multiple_of(4) + 12).unwrap_or(u64::MAX)).to_le_bytes();
    file.extend(kind.to_le_bytes());
    file.extend(length);
    file.extend(body);
    pad(file);
    file.extend(length);
}

fn put_option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
    body.extend(code.to_le_bytes());
    body.extend(half(value.len()).to_le_bytes());
    body.extend(value);
    pad(body);
}

/// Tags are in network order.
fn put_tag(tags: &mut Vec<u8>, kind: u16, value: &[u8]) {
    tags.extend(kind.to_be_bytes());
    tags.extend(half(value.len()).to_be_bytes());
    tags.extend(value);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Kind and body of each block, with both lengths checked.
    fn blocks(mut file: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let mut blocks = Vec::new();
        while let Some((head, _)) = file.split_first_chunk::<8>() {
            let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
            let length = usize::try_from(number(4)).unwrap();
            let (block, rest) = file.split_at(length);
            assert_eq!(block[length - 4..], head[4..8], "both lengths agree");
            assert_eq!(length % 4, 0);
            blocks.push((number(0), block[8..length - 4].to_vec()));
            file = rest;
        }
        assert!(file.is_empty());
        blocks
    }

    #[test]
    fn a_file_has_a_section_an_interface_and_its_packets() {
        let frame = [1, 3, 0, 10, 0, 1];
        let packet = Packet {
            micros: 0x0001_0002_0003_0004,
            dissector: "mbrtu",
            outbound: true,
            peer: None,
            bytes: &frame,
            comment: Some("late"),
        };
        let blocks = blocks(&file("rs485", &[packet, Packet { outbound: false, ..packet }]));
        assert_eq!(
            blocks.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(),
            [SECTION, INTERFACE, PACKET, PACKET]
        );
        assert_eq!(blocks[1].1[..8], [252, 0, 0, 0, 0, 0, 0, 0]);
        let body = &blocks[2].1;
        assert_eq!(body[4..12], [2, 0, 1, 0, 4, 0, 3, 0], "time, upper half first");
        assert!(body.windows(6).any(|window| window == frame));
        assert!(body.windows(5).any(|window| window == b"mbrtu"));
        assert_ne!(blocks[2].1, blocks[3].1, "the direction differs");
    }

    proptest! {
        #[test]
        fn any_frames_make_a_file_of_whole_blocks(
            frames in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..300), ".{0,40}"), 0..10),
            name in ".{0,70}",
        ) {
            let packets: Vec<Packet<'_>> = frames.iter().map(|(bytes, comment)| Packet {
                micros: 1, dissector: "data", outbound: false, peer: Some([10, 0, 0, 1]), bytes,
                comment: Some(comment),
            }).collect();
            prop_assert_eq!(blocks(&file(&name, &packets)).len(), frames.len() + 2);
        }
    }
}
