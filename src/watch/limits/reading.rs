use jiff::SignedDuration;

/// A value at one moment, the higher the worse.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    /// What names it: `disk//var/full`.
    pub key: String,
    pub about: String,
    pub value: f64,
    /// From where on it is told; none where it is not.
    pub bad: Option<f64>,
    /// From where on it is a failure.
    pub failed: Option<f64>,
    /// How far below it has to be to be well again.
    pub margin: f64,
    /// For how long it has to be so.
    pub hold: SignedDuration,
    /// A sentence.
    pub reason: String,
    pub mend: String,
    /// True of what is not told anew.
    pub is_old: bool,
}
