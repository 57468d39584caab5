//! Turns the places that somebody wants to know into as few reads as possible, and takes a read apart again when a
//! device refuses it.
//!
//! Promises: every place is covered by exactly one group, no group exceeds the limits, and a chain of splits ends at
//! single places. Which places belong together (one device, one poll interval) is the caller's business.

use super::{Span, Table};

/// Bits that weigh as much on the wire as one register.
const BITS_PER_REGISTER: u32 = 16;

/// How far a grouped read may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Unused registers that a read may bridge; sixteen times as many for bits.
    pub max_gap: u16,
    /// Most registers in one read; sixteen times as many for bits. The protocol's own limits hold besides.
    pub max_span: u16,
}

impl Limits {
    fn gap(self, table: Table) -> u32 {
        scaled(table, self.max_gap)
    }

    fn span(self, table: Table) -> u32 {
        scaled(table, self.max_span).clamp(1, u32::from(table.read_limit()))
    }
}

fn scaled(table: Table, registers: u16) -> u32 {
    u32::from(registers) * if table.is_bits() { BITS_PER_REGISTER } else { 1 }
}

/// One read and the places that it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    span: Span,
    members: Vec<Member>,
}

/// A place in a group: the caller's number for it, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The caller's number.
    pub key: usize,
    /// Where it is, inside the group's span.
    pub span: Span,
}

impl Group {
    /// What to read.
    pub fn span(&self) -> Span {
        self.span
    }

    /// The places that it answers, by address; never empty.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Takes the group apart for good, after a device refused it: at its widest gap, since an unused register inside
    /// is what devices refuse most often, or in the middle where there is none. `None` for a single place.
    pub fn split(&self) -> Option<(Self, Self)> {
        let middle = self.members.len() / 2;
        let at = (1..self.members.len()).max_by_key(|at| {
            let nearness = self.members.len() - at.abs_diff(middle);
            (self.gap_before(*at), nearness)
        })?;
        let (low, high) = self.members.split_at_checked(at)?;
        Some((Self::of(low.to_vec())?, Self::of(high.to_vec())?))
    }

    /// Places that nobody wants in front of the member at this position.
    fn gap_before(&self, at: usize) -> u32 {
        let (before, from) = self.members.split_at_checked(at).unwrap_or_default();
        let end = before.iter().map(|member| member.span.end()).max().unwrap_or_default();
        from.first().map_or(0, |member| u32::from(member.span.address()).saturating_sub(end))
    }

    /// The smallest group around these members, which are of one table and sorted by address.
    fn of(members: Vec<Member>) -> Option<Self> {
        let first = members.first()?.span;
        let end = members.iter().map(|member| member.span.end()).max()?;
        let count = u16::try_from(end - u32::from(first.address())).ok()?;
        Some(Self { span: Span::new(first.table(), first.address(), count)?, members })
    }
}

/// Groups places, given with the caller's numbers, into reads. A place that is itself wider than `max_span` is read
/// alone. The order of the result is by table and address.
pub fn group(places: impl IntoIterator<Item = (usize, Span)>, limits: Limits) -> Vec<Group> {
    let mut members: Vec<Member> = places.into_iter().map(|(key, span)| Member { key, span }).collect();
    members.sort_by_key(|member| (member.span, member.key));
    let mut groups: Vec<Group> = Vec::new();
    for member in members {
        match groups.last_mut().and_then(|group| Some((joined(group.span, member.span, limits)?, group))) {
            Some((span, group)) => {
                group.span = span;
                group.members.push(member);
            }
            None => groups.push(Group { span: member.span, members: vec![member] }),
        }
    }
    groups
}

/// The span over both, if one read may cover them; `next` does not begin before `span`.
fn joined(span: Span, next: Span, limits: Limits) -> Option<Span> {
    let gap = u32::from(next.address()).saturating_sub(span.end());
    let count = span.end().max(next.end()) - u32::from(span.address());
    // A place inside what is read anyway costs nothing, however wide the read is.
    let free = next.end() <= span.end();
    let allowed = free || (gap <= limits.gap(span.table()) && count <= limits.span(span.table()));
    if span.table() != next.table() || !allowed {
        return None;
    }
    Span::new(span.table(), span.address(), u16::try_from(count).ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { max_gap: 4, max_span: 125 };

    fn holding(address: u16, count: u16) -> Span {
        Span::new(Table::Holding, address, count).unwrap()
    }

    fn spans(groups: &[Group]) -> Vec<(u16, u16)> {
        groups.iter().map(|group| (group.span().address(), group.span().count())).collect()
    }

    fn grouped(places: &[Span], limits: Limits) -> Vec<Group> {
        group(places.iter().copied().enumerate(), limits)
    }

    #[test]
    fn neighbours_and_small_gaps_are_read_together() {
        let groups = grouped(&[holding(16, 2), holding(10, 2), holding(12, 1), holding(40, 1)], LIMITS);
        assert_eq!(spans(&groups), [(10, 8), (40, 1)]);
        assert_eq!(groups[0].members().iter().map(|m| m.key).collect::<Vec<_>>(), [1, 2, 0]);
    }

    #[test]
    fn a_read_never_exceeds_the_span() {
        let limits = Limits { max_gap: 100, max_span: 10 };
        let groups = grouped(&[holding(0, 4), holding(4, 4), holding(8, 4)], limits);
        assert_eq!(spans(&groups), [(0, 8), (8, 4)]);
    }

    #[test]
    fn tables_are_never_mixed() {
        let input = Span::new(Table::Input, 11, 1).unwrap();
        assert_eq!(grouped(&[holding(10, 1), input], LIMITS).len(), 2);
    }

    #[test]
    fn two_properties_may_share_a_register() {
        let groups = grouped(&[holding(10, 2), holding(10, 1), holding(10, 2)], LIMITS);
        assert_eq!(spans(&groups), [(10, 2)]);
        assert_eq!(groups[0].members().len(), 3);
    }

    #[test]
    fn bits_reach_sixteen_times_as_far() {
        let coil = |address| Span::new(Table::Coil, address, 1).unwrap();
        let limits = Limits { max_gap: 1, max_span: 125 };
        assert_eq!(spans(&grouped(&[coil(0), coil(17), coil(34), coil(52)], limits)), [(0, 35), (52, 1)]);
        let wide = Limits { max_gap: 125, max_span: 125 };
        let far: Vec<Span> = (0..=2000).step_by(500).map(coil).collect();
        assert_eq!(spans(&grouped(&far, wide)), [(0, 1501), (2000, 1)]);
    }

    #[test]
    fn the_end_of_the_address_space_is_readable() {
        assert_eq!(spans(&grouped(&[holding(65535, 1), holding(65534, 1)], LIMITS)), [(65534, 2)]);
        assert_eq!(Span::new(Table::Holding, 65535, 2), None);
        assert_eq!(Span::new(Table::Holding, 0, 0), None);
        assert_eq!(Span::new(Table::Holding, 0, 126), None);
    }

    #[test]
    fn a_split_happens_at_the_widest_gap_and_else_in_the_middle() {
        let groups = grouped(&[holding(0, 1), holding(1, 1), holding(2, 1), holding(6, 1)], LIMITS);
        let (low, high) = groups[0].split().unwrap();
        assert_eq!((spans(std::slice::from_ref(&low)), spans(&[high])), (vec![(0, 3)], vec![(6, 1)]));
        let (low, high) = low.split().unwrap();
        assert_eq!((spans(&[low]), spans(std::slice::from_ref(&high))), (vec![(0, 1)], vec![(1, 2)]));
        let (_, last) = high.split().unwrap();
        assert_eq!(last.split(), None);
    }

    prop_compose! {
        fn any_span()(table in 0..4_u8, address in 0..400_u16, count in 1..=4_u16) -> Span {
            let table = [Table::Coil, Table::Discrete, Table::Input, Table::Holding][usize::from(table)];
            Span::new(table, address, count).unwrap()
        }
    }

    fn pieces(group: &Group) -> Vec<Group> {
        match group.split() {
            Some((low, high)) => [pieces(&low), pieces(&high)].concat(),
            None => vec![group.clone()],
        }
    }

    fn check_cover(groups: &[Group], places: &[Span]) {
        let mut seen: Vec<usize> = Vec::new();
        for group in groups {
            assert!(group.span().count() <= group.span().table().read_limit());
            for member in group.members() {
                assert_eq!(member.span, places[member.key]);
                assert!(group.span().offset_of(member.span).is_some());
                seen.push(member.key);
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..places.len()).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn every_place_is_covered_exactly_once(
            places in prop::collection::vec(any_span(), 0..60), max_gap in 0..200_u16, max_span in 0..200_u16,
        ) {
            let limits = Limits { max_gap, max_span };
            let groups = grouped(&places, limits);
            check_cover(&groups, &places);
            for group in &groups {
                let widest = group.members().iter().map(|m| u32::from(m.span.count())).max().unwrap();
                let allowed = limits.span(group.span().table()).max(widest);
                prop_assert!(u32::from(group.span().count()) <= allowed);
            }
        }

        #[test]
        fn splitting_ends_at_single_places_and_loses_none(places in prop::collection::vec(any_span(), 0..40)) {
            let singles: Vec<Group> = grouped(&places, LIMITS).iter().flat_map(pieces).collect();
            check_cover(&singles, &places);
            prop_assert_eq!(singles.len(), places.len());
        }
    }
}
