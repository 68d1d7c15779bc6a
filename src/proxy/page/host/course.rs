//! The course of a line as paths of SVG.

use std::fmt::Write;

use crate::charts::Point;

/// Units of a drawing from its lower edge to the upper one.
pub const HEIGHT: i32 = 160;
/// Units from one point to the next.
pub const STEP: i32 = 4;

/// The mean as a line, and what lies between the lowest and the highest values as an area, each with its gaps.
#[derive(Debug, Default, PartialEq)]
pub struct Course {
    pub mean: String,
    pub band: String,
}

impl Course {
    /// Of points; `bottom` and `top` are the values at the edges.
    pub fn of(points: &[Option<Point>], (bottom, top): (f64, f64)) -> Self {
        let y = |value: f64| {
            let share = if top > bottom { ((value - bottom) / (top - bottom)).clamp(0.0, 1.0) } else { 0.0 };
            HEIGHT - (share * f64::from(HEIGHT)).round() as i32
        };
        let mut course = Self::default();
        let mut x = STEP / 2;
        for run in points.chunk_by(|a, b| a.is_some() == b.is_some()) {
            let known: Vec<&Point> = run.iter().flatten().collect();
            let means: Vec<i32> = known.iter().map(|point| y(point.mean())).collect();
            let highest: Vec<i32> = known.iter().map(|point| y(point.max)).collect();
            let lowest: Vec<i32> = known.iter().map(|point| y(point.min)).collect();
            course.line(x, &means);
            if highest != lowest {
                course.area(x, &highest, &lowest);
            }
            x += STEP * i32::try_from(run.len()).unwrap_or(0);
        }
        course
    }

    fn line(&mut self, x: i32, ys: &[i32]) {
        match ys {
            [] => {}
            // One alone has a width, so that it can be seen.
            [y] => begin(&mut self.mean, x - 1, *y, "h2"),
            [first, ..] => {
                begin(&mut self.mean, x, *first, "");
                walk(&mut self.mean, ys.iter().copied(), STEP);
            }
        }
    }

    fn area(&mut self, x: i32, highest: &[i32], lowest: &[i32]) {
        let (Some(first), Some(last)) = (highest.first(), highest.last().zip(lowest.last())) else { return };
        if highest.len() == 1 {
            begin(&mut self.band, x - 1, *first, "h2");
            let _ = write!(self.band, "v{}h-2z", last.1 - last.0);
            return;
        }
        begin(&mut self.band, x, *first, "");
        walk(&mut self.band, highest.iter().copied(), STEP);
        let _ = write!(self.band, "v{}", last.1 - last.0);
        walk(&mut self.band, lowest.iter().rev().copied(), -STEP);
        self.band.push('z');
    }
}

fn begin(path: &mut String, x: i32, y: i32, rest: &str) {
    let _ = write!(path, "M{x} {y}{rest}");
}

/// From one height to the next, in relative steps; level ones are one step.
fn walk(path: &mut String, ys: impl Iterator<Item = i32>, step: i32) {
    let mut before = None;
    let mut level = 0;
    // The letter may be left out where the one before was the same (SVG 2, 9.3.1).
    let mut is_sloping = false;
    let flush = |path: &mut String, level: &mut i32, is_sloping: &mut bool| {
        if *level != 0 {
            let _ = write!(path, "h{level}");
            (*level, *is_sloping) = (0, false);
        }
    };
    for y in ys {
        let by = before.map(|before: i32| y - before);
        before = Some(y);
        match by {
            None => {}
            Some(0) => level += step,
            Some(by) => {
                flush(path, &mut level, &mut is_sloping);
                let letter = if !is_sloping {
                    "l"
                } else if step < 0 {
                    ""
                } else {
                    " "
                };
                let space = if by < 0 { "" } else { " " };
                let _ = write!(path, "{letter}{step}{space}{by}");
                is_sloping = true;
            }
        }
    }
    flush(path, &mut level, &mut is_sloping);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(min: f64, mean: f64, max: f64) -> Option<Point> {
        Some(Point::new(min, mean, max, 2))
    }

    #[test]
    fn gaps_stay_gaps_and_one_point_is_seen() {
        let level = point(50.0, 50.0, 50.0);
        for (points, mean, band) in [
            (vec![], "", ""),
            (vec![None, None], "", ""),
            (vec![None, level, None], "M5 80h2", ""),
            (vec![level, level, level, None, level, level], "M2 80h8M18 80h4", ""),
            (vec![point(0.0, 50.0, 100.0)], "M1 80h2", "M1 0h2v160h-2z"),
            (
                vec![point(0.0, 25.0, 50.0), point(25.0, 50.0, 50.0), point(0.0, 75.0, 100.0)],
                "M2 120l4-40 4-40",
                "M2 80h4l4-80v160l-4-40-4 40z",
            ),
        ] {
            let course = Course::of(&points, (0.0, 100.0));
            assert_eq!((course.mean.as_str(), course.band.as_str()), (mean, band), "{points:?}");
        }
    }

    #[test]
    fn whatever_the_values_are_the_course_is_within_its_frame() {
        let odd = [point(-1e308, 0.0, 1e308), point(f64::NEG_INFINITY, f64::NAN, f64::INFINITY), point(5.0, 5.0, 5.0)];
        for edges in [(0.0, 0.0), (0.0, 100.0), (-1e308, 1e308), (f64::NAN, 1.0)] {
            let course = Course::of(&odd, edges);
            let fits = |path: &str| path.bytes().all(|b| b.is_ascii_digit() || b"Mhlvz -".contains(&b));
            assert!(fits(&course.mean) && fits(&course.band), "{course:?}");
        }
    }
}
