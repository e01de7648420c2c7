//! Options that say what is sent, whatever it is sent for.

use clap::{Args, Parser};

use crate::mix::Mix;
use crate::quantity;
use crate::random::Distribution;
use crate::shape::{Packing, Shape};

/// What the datagrams hold, and over how many sockets they go.
#[derive(Debug, Clone, Args)]
pub(crate) struct Traffic {
    /// Names of each type, up to 10M.
    #[arg(long, default_value = "1000", value_parser = quantity::names)]
    names: u32,

    /// How often each name comes: uniform, zipf or zipf:EXPONENT.
    #[arg(long, default_value = "uniform")]
    distribution: Distribution,

    /// Types and their weights: c (counter), ms (timer), g (gauge), s (set).
    #[arg(long, default_value = "c:60,ms:25,g:10,s:5")]
    mix: Mix,

    /// Pack lines into datagrams of up to so many bytes [default: 1432].
    #[arg(long, value_name = "BYTES", conflicts_with = "metrics_per_datagram")]
    datagram_bytes: Option<usize>,

    /// Pack exactly so many lines into each datagram; 1 is how simple clients send.
    #[arg(long, value_name = "LINES", value_parser = clap::value_parser!(u16).range(1..))]
    metrics_per_datagram: Option<u16>,

    /// Source sockets; the rate is shared equally [default: one a thread].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    flows: Option<u32>,

    /// Sending threads; the flows are shared among them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) threads: u32,

    /// Hand the kernel many datagrams as one, for it to cut (UDP_SEGMENT). All have to be of equal
    /// size, so lines have to be, too: --mix c.
    #[arg(long)]
    pub(crate) gso: bool,

    /// Decides every byte that is sent, together with the other options.
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// First part of every name.
    #[arg(long, value_name = "PREFIX", default_value = "loadgen",
          value_parser = quantity::prefix)]
    name_prefix: String,

    /// Write `|@RATE` on counters and timers, e.g. 0.1. All are sent: it asks the server to scale.
    #[arg(long, value_name = "RATE", value_parser = quantity::sample_rate)]
    sample_rate: Option<String>,

    /// DogStatsD tags on every line.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=100))]
    tags: u32,

    /// Percent of the lines that are bad, for the server to refuse.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = quantity::percent)]
    malformed: u32,

    /// Percent of the gauges sent as +n or -n.
    #[arg(long, value_name = "PERCENT", default_value_t = 20, value_parser = quantity::percent)]
    gauge_deltas: u32,

    /// Members each set name draws from.
    #[arg(long, value_name = "MEMBERS", default_value = "1000", value_parser = quantity::names)]
    set_members: u32,

    /// Memory for datagrams made beforehand, all flows together.
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = quantity::whole)]
    pub(crate) ring_bytes: u64,
}

/// A command line of nothing else.
#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
struct Alone {
    #[command(flatten)]
    traffic: Traffic,
}

impl Traffic {
    /// The traffic that these options ask for; the rest has its defaults.
    ///
    /// # Panics
    /// When they are none that loadgen takes.
    pub(crate) fn of(options: &str) -> Self {
        let alone = Alone::try_parse_from(options.split(' '));
        alone
            .unwrap_or_else(|error| panic!("{options}: {error}"))
            .traffic
    }

    pub(crate) fn shape(&self) -> Shape {
        Shape {
            seed: self.seed,
            mix: self.mix,
            names: self.names,
            distribution: self.distribution,
            packing: match self.metrics_per_datagram {
                Some(metrics) => Packing::Metrics(metrics.into()),
                None => Packing::Bytes(self.datagram_bytes.unwrap_or(1432)),
            },
            prefix: self.name_prefix.clone(),
            sample_rate: self.sample_rate.clone(),
            tags: self.tags,
            malformed: self.malformed,
            gauge_deltas: self.gauge_deltas,
            set_members: self.set_members,
        }
    }

    pub(crate) fn flows(&self) -> u32 {
        self.flows.unwrap_or(self.threads)
    }

    /// Says why it cannot be sent as asked.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.flows() < self.threads {
            return Err(format!(
                "--flows {} are too few for --threads {}: each thread needs a flow of its own",
                self.flows(),
                self.threads
            ));
        }
        let shape = self.shape();
        shape.check()?;
        if self.gso {
            shape.check_equal_sizes()?;
        }
        Ok(())
    }
}
