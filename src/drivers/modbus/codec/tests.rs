//! Golden vectors, and the promise that what is read can be written back as it was.

use std::time::Duration;

use proptest::prelude::*;

use super::super::map::{Bits, Chars, Order};
use super::*;

const ORDERS: [Order; 4] = [Order::Abcd, Order::Cdab, Order::Badc, Order::Dcba];

fn point(data: Data, order: Order) -> Point {
    Point { order, every: Duration::from_secs(1), ..Point::new(Table::Holding, 100, data) }
}

fn plain(data: Data) -> Point {
    point(data, Order::Abcd)
}

fn scaled(data: Data, scale: f64, offset: f64) -> Point {
    Point { scale, offset, ..plain(data) }
}

fn part(data: Data, first: u8, count: u8) -> Point {
    Point { bits: Some(Bits { first, count }), ..plain(data) }
}

fn letters(text: &str) -> Order {
    let mut letters = [0, 1, 2, 3, 4, 5, 6, 7];
    for (place, letter) in letters.iter_mut().zip(text.bytes()) {
        *place = letter - b'A';
    }
    Order::Letters(letters)
}

fn registers(words: &[u16]) -> Content {
    Content::Registers(words.to_vec())
}

fn read(point: &Point, kind: ValueType, words: &[u16]) -> Sample {
    point.decode(kind, &registers(words).into())
}

fn value(point: &Point, kind: ValueType, words: &[u16]) -> Value {
    match read(point, kind, words) {
        Sample::Value(value) => value,
        Sample::Unreadable(why) => panic!("{words:?}: {why}"),
    }
}

fn written(point: &Point, value: &Value) -> Content {
    point.encode(value, None).unwrap_or_else(|error| panic!("{value}: {error}"))
}

#[test]
fn orders_are_named_by_letters() {
    // A=0x12 B=0x34 C=0x56 D=0x78.
    let wire = [[0x1234, 0x5678], [0x5678, 0x1234], [0x3412, 0x7856], [0x7856, 0x3412]];
    for (order, words) in ORDERS.into_iter().zip(wire) {
        let number = Value::Int(0x1234_5678);
        assert_eq!(value(&point(Data::U32, order), ValueType::Int, &words), number);
        assert_eq!(written(&point(Data::U32, order), &number), registers(&words));
    }
    let swapped = written(&point(Data::U64, Order::Cdab), &Value::Int(0x0001_0002_0003_0004));
    assert_eq!(swapped, registers(&[4, 3, 2, 1]));
    assert_eq!(written(&point(Data::U16, Order::Badc), &Value::Int(0x1234)), registers(&[0x3412]));
}

/// The float and the double are the examples of the IEEE 754 article of Wikipedia (0.15625, 1/3); 123456.0 in four
/// orders is the example that Eastron, Schneider and others print for floats in registers: 0x47F12000.
#[test]
fn numbers_of_every_width_in_every_order() {
    let cases: Vec<(Data, Order, ValueType, Value, &[u16])> = vec![
        (Data::F32, Order::Abcd, ValueType::Float, Value::Float(0.15625), &[0x3E20, 0]),
        (Data::F32, Order::Abcd, ValueType::Float, Value::Float(123_456.0), &[0x47F1, 0x2000]),
        (Data::F32, Order::Cdab, ValueType::Float, Value::Float(123_456.0), &[0x2000, 0x47F1]),
        (Data::F32, Order::Badc, ValueType::Float, Value::Float(123_456.0), &[0xF147, 0x0020]),
        (Data::F32, Order::Dcba, ValueType::Float, Value::Float(123_456.0), &[0x0020, 0xF147]),
        (
            Data::F64,
            Order::Abcd,
            ValueType::Float,
            Value::Float(1.0 / 3.0),
            &[0x3FD5, 0x5555, 0x5555, 0x5555],
        ),
        (Data::F64, letters("GHEFCDAB"), ValueType::Float, Value::Float(1.0), &[0, 0, 0, 0x3FF0]),
        (Data::U24, Order::Abcd, ValueType::Int, Value::Int(0x12_3456), &[0x12, 0x3456]),
        (Data::U24, Order::Cdab, ValueType::Int, Value::Int(0x12_3456), &[0x3456, 0x12]),
        (Data::I24, Order::Abcd, ValueType::Int, Value::Int(-2), &[0xFFFF, 0xFFFE]),
        (Data::U48, Order::Abcd, ValueType::Int, Value::Int(0x1234_5678_9ABC), &[0x1234, 0x5678, 0x9ABC]),
        (Data::U48, Order::Cdab, ValueType::Int, Value::Int(0x1234_5678_9ABC), &[0x9ABC, 0x5678, 0x1234]),
        (Data::U48, Order::Dcba, ValueType::Int, Value::Int(0x1234_5678_9ABC), &[0xBC9A, 0x7856, 0x3412]),
        (
            Data::U48,
            letters("CDABEF"),
            ValueType::Int,
            Value::Int(0x1234_5678_9ABC),
            &[0x5678, 0x1234, 0x9ABC],
        ),
        (Data::I48, Order::Abcd, ValueType::Int, Value::Int(-1), &[0xFFFF, 0xFFFF, 0xFFFF]),
        (
            Data::U64,
            letters("EFGHABCD"),
            ValueType::Int,
            Value::Int(0x0102_0304_0506_0708),
            &[0x0506, 0x0708, 0x0102, 0x0304],
        ),
        (
            Data::U64,
            letters("CDABGHEF"),
            ValueType::Int,
            Value::Int(0x0102_0304_0506_0708),
            &[0x0304, 0x0102, 0x0708, 0x0506],
        ),
        (Data::I64, Order::Dcba, ValueType::Int, Value::Int(-2), &[0xFEFF, 0xFFFF, 0xFFFF, 0xFFFF]),
        (Data::Bcd16, Order::Abcd, ValueType::Int, Value::Int(1234), &[0x1234]),
        (Data::Bcd32, Order::Abcd, ValueType::Int, Value::Int(12_345_678), &[0x1234, 0x5678]),
        (Data::Bcd32, Order::Cdab, ValueType::Int, Value::Int(12_345_678), &[0x5678, 0x1234]),
        (
            Data::Bcd64,
            Order::Abcd,
            ValueType::Int,
            Value::Int(9_999_999_999_999_999),
            &[0x9999, 0x9999, 0x9999, 0x9999],
        ),
        (Data::Switch { on: 0xFF, off: 0 }, Order::Abcd, ValueType::Bool, Value::Bool(true), &[0xFF]),
        (Data::Switch { on: 1, off: 2 }, Order::Abcd, ValueType::Bool, Value::Bool(false), &[2]),
    ];
    for (data, order, kind, number, words) in cases {
        let point = point(data, order);
        assert_eq!(value(&point, kind, words), number, "{data:?} {order:?}");
        assert_eq!(written(&point, &number), registers(words), "{data:?} {order:?}");
    }
}

#[test]
fn what_stands_above_24_bits_is_not_looked_at() {
    assert_eq!(value(&plain(Data::U24), ValueType::Int, &[0xAA12, 0x3456]), Value::Int(0x12_3456));
    assert_eq!(value(&plain(Data::I24), ValueType::Int, &[0x00FF, 0xFFFE]), Value::Int(-2));
}

#[test]
fn readings_get_the_type_of_the_property() {
    let cases = [
        (plain(Data::I16), ValueType::Int, vec![0xFFFF], Value::Int(-1)),
        (plain(Data::U16), ValueType::Float, vec![7], Value::Float(7.0)),
        (plain(Data::U16), ValueType::Bool, vec![7], Value::Bool(true)),
        (plain(Data::Bool), ValueType::Int, vec![7], Value::Int(1)),
        (plain(Data::U16), ValueType::Enum, vec![3], Value::Int(3)),
        (scaled(Data::I16, 0.1, 0.0), ValueType::Float, vec![235], Value::Float(23.5)),
        (scaled(Data::I16, 0.1, 0.0), ValueType::Int, vec![238], Value::Int(24)),
        (scaled(Data::U16, 0.1, -40.0), ValueType::Float, vec![403], Value::Float(0.3)),
        (scaled(Data::U16, 1e-12, 0.0), ValueType::Float, vec![1234], Value::Float(1.234e-9)),
        (scaled(Data::I16, -0.1, 0.0), ValueType::Float, vec![0], Value::Float(0.0)),
        (scaled(Data::Bcd16, 0.01, 0.0), ValueType::Float, vec![0x2350], Value::Float(23.5)),
        (plain(Data::F32), ValueType::Float, vec![0x41B8, 0xCCCD], Value::Float(23.1)),
        (plain(Data::I64), ValueType::Int, vec![0x8000, 0, 0, 0], Value::Int(i64::MIN)),
        (
            Point { decimals: Some(1), ..plain(Data::F32) },
            ValueType::Float,
            vec![0x4366, 0x3F7D],
            Value::Float(230.2),
        ),
        (
            Point { decimals: Some(0), ..scaled(Data::I16, 0.1, 0.0) },
            ValueType::Float,
            vec![0xFFFC],
            Value::Float(0.0),
        ),
    ];
    for (point, kind, words, expected) in cases {
        assert_eq!(read(&point, kind, &words), Sample::Value(expected), "{words:?}");
    }
    let zero = value(&scaled(Data::I16, -0.1, 0.0), ValueType::Float, &[0]);
    assert!(matches!(zero, Value::Float(n) if n.is_sign_positive()));
    let rounded = Point { decimals: Some(0), ..scaled(Data::I16, 0.1, 0.0) };
    let zero = value(&rounded, ValueType::Float, &[0xFFFC]);
    assert!(matches!(zero, Value::Float(n) if n.is_sign_positive()));
}

#[test]
fn what_is_no_number_is_unreadable() {
    let cases = [
        (plain(Data::F32), ValueType::Float, vec![0x7FC0, 0]),
        (plain(Data::F32), ValueType::Float, vec![0x7F80, 0]),
        (plain(Data::F64), ValueType::Float, vec![0xFFF0, 0, 0, 0]),
        (scaled(Data::F64, 1e300, 0.0), ValueType::Float, vec![0x7F00, 0, 0, 0]),
        (plain(Data::U64), ValueType::Int, vec![0xFFFF; 4]),
        (plain(Data::U16), ValueType::Text, vec![1]),
        (plain(Data::Bcd16), ValueType::Int, vec![0x12A4]),
        (plain(Data::Switch { on: 1, off: 0 }), ValueType::Bool, vec![7]),
        (plain(Data::Text { registers: 1, chars: Chars::Both }), ValueType::Int, vec![0x3132]),
        (plain(Data::Text { registers: 1, chars: Chars::Both }), ValueType::Text, vec![0xC328]),
        (plain(Data::Text { registers: 1, chars: Chars::Both }), ValueType::Text, vec![0x4107]),
    ];
    for (point, kind, words) in cases {
        assert!(matches!(read(&point, kind, &words), Sample::Unreadable(_)), "{words:?}");
    }
}

#[test]
fn contents_that_mean_no_reading_are_none() {
    let sensor = Point { invalid: vec![0x8000, 0xFFFF], ..scaled(Data::I16, 0.1, 0.0) };
    let sample = read(&sensor, ValueType::Float, &[0x8000]);
    let told = "the device tells that it has no reading (0x8000)";
    assert_eq!(sample, Sample::Unreadable(told.into()));
    assert!(matches!(read(&sensor, ValueType::Float, &[0xFFFF]), Sample::Unreadable(_)));
    assert_eq!(value(&sensor, ValueType::Float, &[0xFFFE]), Value::Float(-0.2));
    // Of a part of a register too it is the whole that counts.
    let flag = Point { invalid: vec![0xFFFF], ..part(Data::U16, 3, 1) };
    assert!(matches!(read(&flag, ValueType::Bool, &[0xFFFF]), Sample::Unreadable(_)));
    // And of swapped words the number, not what travels.
    let swapped = Point { invalid: vec![0x8000_0000], ..point(Data::I32, Order::Cdab) };
    assert!(matches!(read(&swapped, ValueType::Int, &[0, 0x8000]), Sample::Unreadable(_)));
}

#[test]
fn bits_are_parts_of_numbers() {
    let cases = [
        (part(Data::U16, 0, 1), ValueType::Bool, vec![0x0001], Value::Bool(true)),
        (part(Data::U16, 15, 1), ValueType::Bool, vec![0x7FFF], Value::Bool(false)),
        (part(Data::U16, 4, 4), ValueType::Int, vec![0x12A4], Value::Int(10)),
        (part(Data::U16, 8, 8), ValueType::Enum, vec![0x12A4], Value::Int(0x12)),
        (part(Data::I16, 0, 8), ValueType::Int, vec![0x12FE], Value::Int(-2)),
        (part(Data::U32, 12, 8), ValueType::Int, vec![0x000A, 0xB000], Value::Int(0xAB)),
        (part(Data::U64, 0, 64), ValueType::Int, vec![0, 0, 0, 9], Value::Int(9)),
    ];
    for (point, kind, words, expected) in cases {
        assert_eq!(value(&point, kind, &words), expected, "{words:?}");
        let before = registers(&words).into();
        assert_eq!(point.encode(&expected, Some(&before)), Ok(registers(&words)), "{words:?}");
    }
    let high = part(Data::U16, 8, 8);
    let before = registers(&[0x12A4]).into();
    assert_eq!(high.encode(&Value::Int(0x34), Some(&before)), Ok(registers(&[0x34A4])));
    assert!(high.encode(&Value::Int(256), Some(&before)).unwrap_err().to_string().starts_with("0 to 255"));
    assert!(high.encode(&Value::Int(1), None).is_err(), "the other bits are not known");
    // What another bit became meanwhile is no difference.
    assert!(high.same(&registers(&[0x34A4]), &registers(&[0x34FF])));
    assert!(!high.same(&registers(&[0x34A4]), &registers(&[0x35A4])));
}

#[test]
fn a_mask_write_needs_to_know_nothing() {
    let mask = |data, first, count| Point { write: WritePolicy::Mask, ..part(data, first, count) };
    let requests = |point: &Point, value| point.write_requests(&written(point, &value));
    let one = mask(Data::U16, 4, 2);
    assert_eq!(one.needs(), None);
    let expected = Request::MaskRegister { address: 100, and: 0xFFCF, or: 0x0020 };
    assert_eq!(requests(&one, Value::Int(2)), Ok(vec![expected]));
    // Bits 12 to 19 lie in both registers.
    let both = requests(&mask(Data::U32, 12, 8), Value::Int(0xAB)).unwrap();
    let expected = [
        Request::MaskRegister { address: 100, and: 0xFFF0, or: 0x000A },
        Request::MaskRegister { address: 101, and: 0x0FFF, or: 0xB000 },
    ];
    assert_eq!(both, expected);
    let low = requests(&mask(Data::U32, 0, 8), Value::Int(1)).unwrap();
    assert_eq!(low, [Request::MaskRegister { address: 101, and: 0xFF00, or: 1 }]);
}

/// The layouts that Telegraf's Modbus input tells apart, and SunSpec's text padded with NUL.
#[test]
fn text_has_its_own_order() {
    let text = |registers, chars, order| point(Data::Text { registers, chars }, order);
    let cases: Vec<(Point, &str, &[u16])> = vec![
        (text(4, Chars::Both, Order::Abcd), "Modbus", &[0x4D6F, 0x6462, 0x7573, 0]),
        (text(3, Chars::Both, Order::Badc), "Modbus", &[0x6F4D, 0x6264, 0x7375]),
        (text(3, Chars::Both, Order::Cdab), "Modbus", &[0x7573, 0x6462, 0x4D6F]),
        (text(3, Chars::Both, Order::Dcba), "Modbus", &[0x7375, 0x6264, 0x6F4D]),
        (text(3, Chars::High, Order::Abcd), "abc", &[0x6100, 0x6200, 0x6300]),
        (text(4, Chars::Low, Order::Abcd), "abc", &[0x61, 0x62, 0x63, 0]),
        (text(3, Chars::Low, Order::Cdab), "abc", &[0x63, 0x62, 0x61]),
        (text(3, Chars::Both, Order::Abcd), "21,5 °", &[0x3231, 0x2C35, 0x20C2]),
        (text(2, Chars::Both, Order::Abcd), "", &[0, 0]),
    ];
    for (point, words_of, words) in cases {
        if words_of == "21,5 °" {
            assert!(point.encode(&Value::text(words_of), None).is_err(), "seven bytes in six");
            continue;
        }
        assert_eq!(value(&point, ValueType::Text, words), Value::text(words_of));
        assert_eq!(written(&point, &Value::text(words_of)), registers(words));
    }
    let padded = text(4, Chars::Both, Order::Abcd);
    for words in
        [[0x4142, 0x2020, 0x2020, 0x2020], [0x4142, 0xFFFF, 0xFFFF, 0xFFFF], [0x2041, 0x4200, 0x5858, 0]]
    {
        assert_eq!(value(&padded, ValueType::Text, &words), Value::text("AB"), "{words:X?}");
        assert!(padded.same(&registers(&[0x4142, 0, 0, 0]), &registers(&words)));
    }
    let refused = |value| padded.encode(&value, None).unwrap_err().to_string();
    assert_eq!(refused(Value::text("123456789")), "text of at most 8 bytes without control characters");
    assert_eq!(refused(Value::Int(1)), "text, not a int");
}

#[test]
fn a_factor_is_read_together_with_its_number() {
    let volts = Point { factor: Some(104), ..plain(Data::U16) };
    assert_eq!(volts.span(), Span::new(Table::Holding, 100, 5));
    assert_eq!(volts.needs(), volts.span());
    let span = Span::new(Table::Holding, 98, 10).unwrap();
    let reading = |factor: u16| {
        let answer = Answer::Registers(vec![0, 0, 2301, 0, 0, 0, factor, 0, 0, 0]);
        volts.decode(ValueType::Float, &volts.extract(span, &answer).unwrap())
    };
    assert_eq!(reading(0xFFFF), Sample::Value(Value::Float(230.1)));
    assert_eq!(reading(0xFFFE), Sample::Value(Value::Float(23.01)));
    assert_eq!(reading(0), Sample::Value(Value::Float(2301.0)));
    assert_eq!(reading(1), Sample::Value(Value::Float(23010.0)));
    // SunSpec's "not implemented", and what is no power that anybody means.
    assert!(matches!(reading(0x8000), Sample::Unreadable(_)));
    assert!(matches!(reading(300), Sample::Unreadable(_)));
    let before = Found { content: registers(&[0]), factor: Some(0xFFFF) };
    assert_eq!(volts.encode(&Value::Float(230.1), Some(&before)), Ok(registers(&[2301])));
    assert!(volts.encode(&Value::Float(230.1), None).is_err());
    let ahead = Point { factor: Some(90), ..plain(Data::U16) };
    assert_eq!(ahead.span(), Span::new(Table::Holding, 90, 11));
    let far = Point { factor: Some(300), ..plain(Data::U16) };
    assert_eq!(far.span(), None);
}

#[test]
fn values_that_registers_cannot_hold_are_refused_with_what_they_can() {
    let refused = |point: &Point, value| point.encode(&value, None).unwrap_err().to_string();
    assert_eq!(
        refused(&scaled(Data::I16, 0.1, 0.0), Value::Float(4000.0)),
        "-3276.8 to 3276.7, which is what its registers hold"
    );
    assert!(refused(&plain(Data::Bcd16), Value::Int(10_000)).starts_with("0 to 9999"));
    assert!(refused(&plain(Data::U24), Value::Int(1 << 24)).starts_with("0 to 16777215"));
    assert!(refused(&plain(Data::Switch { on: 7, off: 9 }), Value::Int(2)).starts_with("0 to 1"));
    for value in [Value::Int(-1), Value::Int(65536), Value::Float(f64::NAN), Value::Float(f64::INFINITY)] {
        assert!(plain(Data::U16).encode(&value, None).is_err(), "{value}");
    }
    assert!(plain(Data::F32).encode(&Value::Float(1e39), None).is_err());
    assert!(plain(Data::F64).encode(&Value::Float(f64::NAN), None).is_err());
    assert!(scaled(Data::U16, 0.0, 0.0).encode(&Value::Int(1), None).is_err());
    assert!(refused(&plain(Data::U16), Value::text("x")).contains("string"));
}

#[test]
fn the_write_policy_chooses_the_function() {
    let functions = |table, data, write| {
        let point = Point { table, write, ..plain(data) };
        let requests = point.write_requests(&written(&point, &Value::Int(1))).unwrap();
        requests.iter().map(Request::function).collect::<Vec<_>>()
    };
    assert_eq!(functions(Table::Coil, Data::Bool, WritePolicy::Auto), [5]);
    assert_eq!(functions(Table::Coil, Data::Bool, WritePolicy::Multiple), [15]);
    assert_eq!(functions(Table::Holding, Data::U16, WritePolicy::Auto), [6]);
    assert_eq!(functions(Table::Holding, Data::U16, WritePolicy::Multiple), [16]);
    assert_eq!(functions(Table::Holding, Data::F32, WritePolicy::Auto), [16]);
    assert_eq!(functions(Table::Holding, Data::F32, WritePolicy::Single), [6, 6]);
    let input = Point { table: Table::Input, ..plain(Data::U16) };
    assert!(input.write_requests(&registers(&[1])).is_err());
    let elsewhere = Point { read: Table::Input, ..plain(Data::U16) };
    assert_eq!(elsewhere.span(), Span::new(Table::Input, 100, 1));
    assert_eq!(elsewhere.write_requests(&registers(&[1])).unwrap()[0].function(), 6);
}

#[test]
fn a_point_finds_itself_in_a_grouped_answer() {
    let point = plain(Data::U32);
    let span = Span::new(Table::Holding, 98, 5).unwrap();
    let answer = Answer::Registers(vec![1, 2, 3, 4, 5]);
    assert_eq!(point.extract(span, &answer), Some(registers(&[3, 4]).into()));
    let elsewhere = Span::new(Table::Holding, 101, 5).unwrap();
    assert_eq!(point.extract(elsewhere, &answer), None);
}

const NUMBERS: [Data; 14] = [
    Data::U16,
    Data::I16,
    Data::U24,
    Data::I24,
    Data::U32,
    Data::I32,
    Data::U48,
    Data::I48,
    Data::U64,
    Data::I64,
    Data::F32,
    Data::F64,
    Data::Bcd32,
    Data::Bcd64,
];

prop_compose! {
    fn any_data()(at in 0..NUMBERS.len(), order in 0..5_usize, letters in Just([0_u8, 1, 2, 3, 4, 5, 6, 7]).prop_shuffle()) -> Point {
        let data = NUMBERS[at];
        // Letters that the type has are only sure for eight bytes.
        let order = match ORDERS.get(order) {
            Some(order) => *order,
            None if data.count() == 4 => Order::Letters(letters),
            None => Order::Abcd,
        };
        point(data, order)
    }
}

fn kind_of(data: Data) -> ValueType {
    if matches!(data, Data::F32 | Data::F64) { ValueType::Float } else { ValueType::Int }
}

proptest! {
    #[test]
    fn what_is_read_can_be_written_back_as_it_was(point in any_data(), words: [u16; 4]) {
        let words = &words[..usize::from(point.data.count())];
        match read(&point, kind_of(point.data), words) {
            // Of the two zeros only one is written.
            Sample::Value(Value::Float(0.0)) | Sample::Unreadable(_) => {}
            Sample::Value(value) => {
                let back = written(&point, &value);
                prop_assert!(point.same(&registers(words), &back), "{:?} {:?}", words, back);
                if point.data.width() % 16 == 0 {
                    prop_assert_eq!(back, registers(words));
                }
            }
        }
    }

    #[test]
    fn a_part_changes_nothing_around_it(
        at in 0..10_usize, first in 0..64_u8, count in 1..=64_u8, words: [u16; 4], other: [u16; 4],
    ) {
        let data = NUMBERS[at];
        let width = u8::try_from(data.width()).unwrap();
        let first = first % width;
        let point = part(data, first, count.min(width - first));
        let (words, other) =
            (&words[..usize::from(data.count())], &other[..usize::from(data.count())]);
        if let Sample::Value(value) = read(&point, ValueType::Int, words) {
            let there = registers(words).into();
            let same = point.encode(&value, Some(&there)).unwrap();
            prop_assert!(plain(data).same(&same, &registers(words)));
            let moved = point.encode(&value, Some(&registers(other).into())).unwrap();
            prop_assert!(point.same(&moved, &registers(words)));
            // What stood around it in the other registers still does.
            let back = read(&point, ValueType::Int, other);
            if let Sample::Value(old) = back {
                let undone = point.encode(&old, Some(&moved.into())).unwrap();
                prop_assert!(plain(data).same(&undone, &registers(other)));
            }
        }
    }

    #[test]
    fn text_survives(text in "[!-~ ]{0,24}", order in 0..4_usize, chars in 0..3_usize) {
        let chars = [Chars::Both, Chars::High, Chars::Low][chars];
        let point = point(Data::Text { registers: 24, chars }, ORDERS[order]);
        let Content::Registers(words) = written(&point, &Value::text(text.as_str())) else {
            return Err(TestCaseError::fail("not registers"));
        };
        prop_assert_eq!(value(&point, ValueType::Text, &words), Value::text(text.trim_matches(' ')));
    }

    #[test]
    fn decimal_fractions_survive(raw: i16, places in 0..4_i32) {
        let scale = 10_f64.powi(-places);
        let fixed = scaled(Data::I16, scale, 0.0);
        let told = Point { factor: Some(101), ..plain(Data::I16) };
        let factor = u16::from_ne_bytes(i16::try_from(-places).unwrap().to_ne_bytes());
        for (point, factor) in [(fixed, None), (told, Some(factor))] {
            let before = Found { content: registers(&[0]), factor };
            let content = point.encode(&Value::Float(f64::from(raw) * scale), Some(&before)).unwrap();
            let found = Found { content: content.clone(), factor };
            let Sample::Value(value) = point.decode(ValueType::Float, &found) else {
                return Err(TestCaseError::fail("not decoded"));
            };
            prop_assert!(value.to_string().len() <= 8, "{} has too many digits", value);
            prop_assert_eq!(point.encode(&value, Some(&before)), Ok(content));
        }
    }

    #[test]
    fn no_value_does_harm(
        point in any_data(), scale: f64, offset: f64, number: f64, words: [u16; 4], factor: u16,
        first in 0..70_u8, count in 0..70_u8, decimals in 0..12_u8,
    ) {
        let point = Point { scale, offset, decimals: Some(decimals), factor: Some(101), ..point };
        let broken = Point { bits: Some(Bits { first, count }), ..point.clone() };
        let words = &words[..usize::from(point.data.count())];
        for point in [point, broken] {
            let found = Found { content: registers(words), factor: Some(factor) };
            drop(point.encode(&Value::Float(number), Some(&found)));
            if let Sample::Value(Value::Float(n)) = point.decode(ValueType::Float, &found) {
                prop_assert!(n.is_finite());
            }
        }
    }
}
