//! An input that is a stream and how it comes in pieces.

/// The first byte says how many sizes follow; behind them is the stream, cut at these sizes in turn, or not at all
/// when there are none.
pub(crate) fn pieces(input: &[u8]) -> (&[u8], Vec<&[u8]>) {
    let (count, rest) = input.split_first().unwrap_or((&0, &[]));
    let (sizes, stream) = rest.split_at(usize::from(*count % 16).min(rest.len()));
    let mut sizes = sizes.iter().map(|size| usize::from(*size) + 1).cycle();
    let (mut pieces, mut rest) = (Vec::new(), stream);
    while !rest.is_empty() {
        let size = sizes.next().unwrap_or(rest.len()).min(rest.len());
        let (piece, behind) = rest.split_at(size);
        pieces.push(piece);
        rest = behind;
    }
    (stream, pieces)
}
