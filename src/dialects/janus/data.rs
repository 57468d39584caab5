//! `/api/device/data`: past values of one device, a hundred to a page.
//!
//! Times are wall clocks of the gateway's zone, as everywhere in this dialect. Both ends belong to the asked time, and
//! either may be left out. A field that the device does not have is no field of any row.

use std::sync::Arc;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::device::Refusal;
use crate::dialects::Request;
use crate::model::device::Device;
use crate::model::history::HistoryQuery;
use crate::model::time::UnixMillis;

/// Rows on one page.
const PAGE: usize = 100;

/// What is asked for.
#[derive(Debug)]
pub(super) struct Wish {
    pub query: HistoryQuery,
    pub page: usize,
}

impl Wish {
    /// From the request; the device is one that the client may see.
    pub(super) fn of(
        request: &Request,
        device: &Device,
        page: usize,
        zone: &TimeZone,
    ) -> Result<Self, Refusal> {
        let from = moment(request, "start", zone)?.unwrap_or(UnixMillis(i64::MIN));
        // The wall clock names a whole second.
        let to = moment(request, "end", zone)?.map_or(i64::MAX, |end| end.0.saturating_add(999));
        let fields = request.query("fields").unwrap_or_default().split(',').map(str::trim);
        let properties: Vec<Arc<str>> = fields.filter(|field| !field.is_empty()).map(Arc::from).collect();
        let before = (page - 1).saturating_mul(PAGE);
        let query = HistoryQuery {
            device: Arc::clone(&device.id),
            properties,
            from,
            to: UnixMillis(to),
            limit: PAGE,
            offset: u64::try_from(before).unwrap_or(u64::MAX),
            newest_first: false,
        };
        Ok(Self { query, page })
    }
}

/// A wall clock of the gateway. One that the clocks passed twice is the first of both, one that they left out is as
/// much later as was left out.
fn moment(request: &Request, name: &str, zone: &TimeZone) -> Result<Option<UnixMillis>, Refusal> {
    let Some(text) = request.query(name).map(str::trim).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let wrong = |_| Refusal::new(400, format!("the parameter {name} is no time like 2018-04-12 14:25:20"));
    let clock = DateTime::strptime("%Y-%m-%d %H:%M:%S", text.replacen('T', " ", 1)).map_err(wrong)?;
    let moment = zone.to_ambiguous_zoned(clock).compatible().map_err(wrong)?;
    Ok(Some(UnixMillis(moment.timestamp().as_millisecond())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dialects::shared::fixture;

    fn wish(query: &[(&str, &str)], zone: &TimeZone) -> Result<Wish, Refusal> {
        let context = fixture::context();
        let mut request = fixture::request("GET", "/api/device/data", false);
        request.query = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Wish::of(&request, &fixture::press(&context), 2, zone)
    }

    #[test]
    fn times_are_of_the_gateways_zone_and_both_ends_belong_to_it() {
        let zone = TimeZone::fixed(jiff::tz::offset(8));
        let asked = [("start", "2018-04-12 14:25:20"), ("end", "2018-04-12T14:25:21"), ("fields", "a, b,")];
        let query = wish(&asked, &zone).unwrap().query;
        assert_eq!((query.from.0, query.to.0), (1_523_514_320_000, 1_523_514_321_999));
        assert_eq!(query.properties, [Arc::from("a"), Arc::from("b")]);
        assert_eq!((query.limit, query.offset), (100, 100), "the second page");
        let open = wish(&[], &zone).unwrap().query;
        assert_eq!((open.from.0, open.to.0), (i64::MIN, i64::MAX));
    }

    #[test]
    fn hours_that_clocks_pass_twice_or_leave_out_are_times_too() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        for (clock, millis) in
            [("2024-10-27 02:30:00", 1_729_989_000_000), ("2024-03-31 02:30:00", 1_711_848_600_000)]
        {
            assert_eq!(wish(&[("start", clock)], &zone).unwrap().query.from.0, millis, "{clock}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["yesterday", "2018-04-12", "1523514320", "2018-13-12 14:25:20"] {
            assert!(wish(&[("start", text)], &TimeZone::UTC).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>(), at in any::<[u16; 6]>()) {
            let [year, month, day, hour, minute, second] = at;
            let clock = format!("{year}-{month}-{day} {hour}:{minute}:{second}");
            for text in [&text, &clock] {
                drop(wish(&[("start", text), ("end", text), ("fields", text)], &TimeZone::UTC));
            }
        }
    }
}
