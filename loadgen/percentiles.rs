//! A histogram as the text that the plotters of HdrHistogram read (`.hgrm`).

use std::io::{self, Write};

use hdrhistogram::Histogram;

/// Rows for each halving of the distance to 100 %, as HdrHistogram's own tools write.
const TICKS: u32 = 5;

/// Writes the percentiles of `nanoseconds`, in microseconds.
pub(crate) fn write(nanoseconds: &Histogram<u64>, out: &mut impl Write) -> io::Result<()> {
    let microseconds = |nanoseconds: f64| nanoseconds / 1000.0;
    let [value, percentile, count, inverse] =
        ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"];
    writeln!(
        out,
        "{value:>12} {percentile:>14} {count:>10} {inverse:>14}\n"
    )?;
    let mut total = 0;
    for step in nanoseconds.iter_quantiles(TICKS) {
        total += step.count_since_last_iteration();
        let value = microseconds(step.value_iterated_to() as f64);
        let quantile = step.quantile_iterated_to();
        write!(out, "{value:12.3} {quantile:14.12} {total:10}")?;
        // The last row has no inverse.
        if quantile < 1.0 {
            write!(out, " {:14.2}", 1.0 / (1.0 - quantile))?;
        }
        writeln!(out)?;
    }
    writeln!(
        out,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]",
        microseconds(nanoseconds.mean()),
        microseconds(nanoseconds.stdev())
    )?;
    writeln!(
        out,
        "#[Max     = {:12.3}, Total count    = {:12}]",
        microseconds(nanoseconds.max() as f64),
        nanoseconds.len()
    )?;
    // Powers of two that hold twice as many steps as 3 digits need.
    let sub_buckets = (2 * 10_u64.pow(nanoseconds.sigfig().into())).next_power_of_two();
    writeln!(
        out,
        "#[Buckets = {:12}, SubBuckets     = {sub_buckets:12}]",
        nanoseconds.buckets()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::Lateness;

    #[test]
    fn the_text_is_that_of_the_plotters() {
        let mut lateness = Lateness::default();
        for late in [1_000, 2_000, 2_000, 4_000] {
            lateness.record(late);
        }
        let mut out = Vec::new();
        write(&lateness.histogram, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[..3],
            [
                "       Value     Percentile TotalCount 1/(1-Percentile)",
                "",
                "       1.000 0.000000000000          1           1.00",
            ]
        );
        assert!(
            lines.contains(&"       2.000 0.500000000000          3           2.00"),
            "{text}"
        );
        assert_eq!(
            lines[lines.len() - 4..],
            [
                "       4.001 1.000000000000          4",
                "#[Mean    =        2.250, StdDeviation   =        1.090]",
                "#[Max     =        4.001, Total count    =            4]",
                "#[Buckets =           32, SubBuckets     =         2048]",
            ],
            "{text}"
        );
    }
}
