//! Keys as the catalogs show them.

/// Whether a table, by its oid, has a unique key on these columns, in any order, that stops a row while it is inserted.
pub(super) fn unique(oid: &str, columns: &[&str]) -> String {
    let names: Vec<String> = columns.iter().map(|column| format!("'{column}'")).collect();
    format!(
        "EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = {oid} AND i.indisunique AND i.indisvalid AND i.indimmediate \
         AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indnkeyatts = {count} \
         AND ARRAY(SELECT k.attname::text FROM pg_attribute AS k WHERE k.attrelid = {oid} \
                   AND k.attnum = ANY (i.indkey[0:{count} - 1]) ORDER BY k.attname::text COLLATE \"C\") \
             = ARRAY(SELECT name FROM unnest(ARRAY[{names}]) AS name ORDER BY name COLLATE \"C\"))",
        count = columns.len(),
        names = names.join(", ")
    )
}
