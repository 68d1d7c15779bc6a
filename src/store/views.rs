use super::METRICS_TABLE;

/// A view over `system_metrics` with a `time` column, `host`, and numbers as columns, so that a panel needs no JSON.
/// Its numbers are double precision in both databases; true and false become 1 and 0; what is no number becomes NULL.
pub(super) struct View {
    pub name: &'static str,
    /// The `metric_type` it shows.
    pub metric_type: &'static str,
    pub rows: Rows,
    /// Column and dotted path of the number in the payload (or in each value of it).
    pub columns: &'static [(&'static str, &'static str)],
}

/// What becomes a row of a view.
pub(super) enum Rows {
    /// The payload itself.
    Payload,
    /// Every object in the payload; its key becomes a column of this name.
    EachObject(&'static str),
    /// Every number in an object of the payload: the object's key, the column for the keys, the column for the numbers.
    EachNumber(&'static str, &'static str, &'static str),
}

/// Every view. Whoever changes one raises the version of `Object::MetricViews`.
pub(super) const VIEWS: &[View] = &[
    View {
        name: "metrics_cpu",
        metric_type: "cpu",
        rows: Rows::Payload,
        columns: &[("usage", "usage"), ("package_temp", "package_temp")],
    },
    View {
        name: "metrics_cpu_core_temp",
        metric_type: "cpu",
        rows: Rows::EachNumber("core_temps", "core", "celsius"),
        columns: &[],
    },
    View {
        name: "metrics_memory",
        metric_type: "memory",
        rows: Rows::Payload,
        columns: &[("total", "total"), ("available", "available"), ("used", "used"), ("used_percent", "used_percent")],
    },
    View {
        name: "metrics_disk",
        metric_type: "disk",
        rows: Rows::EachObject("mount"),
        columns: &[("total", "total"), ("used", "used"), ("free", "free"), ("used_percent", "used_percent")],
    },
    View {
        name: "metrics_network",
        metric_type: "network",
        rows: Rows::EachObject("interface"),
        columns: &[("rx_bytes", "rx_bytes"), ("tx_bytes", "tx_bytes")],
    },
];

/// How a database writes the parts of a view.
pub(super) trait Dialect {
    /// The columns that every view begins with, of the table `m`.
    const HEAD: &'static str;
    /// The payload of the table `m`.
    const PAYLOAD: &'static str;
    /// The value of a row that `each` gives.
    const VALUE: &'static str;
    /// The beginning of a statement that makes a view.
    const CREATE: &'static str;
    /// A column expression: the number at a dotted path of a JSON expression.
    fn number(json: &str, path: &str) -> String;
    /// A FROM item that gives `key` and `value` of every member of the payload, or of the object at `path` in it.
    fn each(path: Option<&str>) -> String;
    /// A condition: the value of `each` is an object, or else a number.
    fn is_object(object: bool) -> &'static str;
}

/// The statement that makes a view, up to `D::CREATE` anew.
pub(super) fn statement<D: Dialect>(view: &View) -> String {
    let (json, key_column, value_column, from, condition) = match view.rows {
        Rows::Payload => (D::PAYLOAD, None, None, String::new(), String::new()),
        Rows::EachObject(key) => (D::VALUE, Some(key), None, D::each(None), format!(" AND {}", D::is_object(true))),
        Rows::EachNumber(object, key, value) => {
            (D::VALUE, Some(key), Some(value), D::each(Some(object)), format!(" AND {}", D::is_object(false)))
        }
    };
    let mut columns = vec![D::HEAD.to_owned()];
    columns.extend(key_column.map(|name| format!("each.key AS \"{name}\"")));
    columns.extend(value_column.map(|name| format!("{} AS \"{name}\"", D::number(json, ""))));
    columns.extend(view.columns.iter().map(|(name, path)| format!("{} AS \"{name}\"", D::number(json, path))));
    format!(
        "{} {} AS SELECT {} FROM {METRICS_TABLE} AS m{from} WHERE m.metric_type = '{}'{condition}",
        D::CREATE,
        view.name,
        columns.join(", "),
        view.metric_type
    )
}
