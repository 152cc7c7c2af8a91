// Owned by notebooks/90_plot.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash b478207c7c1884ec
//! What notebooks/90_plot.ipynb claims.

#[cfg(feature = "plot")]
use minai::plot::{
    Align, Axes, Colors, Figure, Look, Page, Scale, Series, animate, axes, bar, curve, hist, imshow, line,
    number, plot, scatter, show_images, text_width,
};

// %% notebooks/90_plot.ipynb svg-test
#[cfg(feature = "plot")]
#[test]
fn svg_carries_its_words() -> Result<(), Box<dyn std::error::Error>> {
    {
        let mut page = Page::new(200, 50);
        page.text((10.0, 20.0), Align::Left, 12.0, [0, 0, 0], "1 < 2 & \"3\"\u{7}");
        let figure = Figure { page, title: "A <b> & c".into(), description: "Says \"hello\"".into() };
        let svg = figure.svg();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("role=\"img\" aria-label=\"A &lt;b&gt; &amp; c. Says &quot;hello&quot;\""));
        assert!(svg.contains("<title>A &lt;b&gt; &amp; c</title>"));
        assert!(svg.contains("<desc>Says &quot;hello&quot;</desc>"));
        assert!(svg.contains("1 &lt; 2 &amp; &quot;3&quot; "));
        assert!(svg.contains("font-family=\"DejaVu Sans, Verdana, Arial, sans-serif\""));
    }
    println!("passed");
    Ok(())
}

// %% notebooks/90_plot.ipynb png-test
#[cfg(feature = "plot")]
#[test]
fn png_has_the_marks_where_they_belong() -> Result<(), Box<dyn std::error::Error>> {
    {
        let mut page = Page::new(60, 40);
        page.area(&[(10.0, 10.0), (20.0, 10.0), (20.0, 30.0), (10.0, 30.0)], [200, 100, 0]);
        page.image((30, 10), 2, (1, 2), vec![1, 2, 3, 4, 5, 6]);
        let figure = Figure { page, title: String::new(), description: String::new() };
        let bytes = figure.png();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info()?;
        let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut rgb)?;
        assert_eq!((info.width, info.height), (120, 80)); // two pixels per CSS pixel
        let at = |x: usize, y: usize| [0, 1, 2].map(|c| rgb[(2 * y * 120 + 2 * x) * 3 + c]);
        assert_eq!(at(15, 20), [200, 100, 0]);
        assert_eq!([at(8, 20), at(22, 20), at(15, 8), at(15, 32)], [[255; 3]; 4]);
        assert_eq!(
            [at(30, 10), at(31, 11), at(32, 10), at(33, 11)],
            [[1, 2, 3], [1, 2, 3], [4, 5, 6], [4, 5, 6]]
        );
        assert_eq!([at(34, 10), at(30, 12)], [[255; 3]; 2]);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/90_plot.ipynb text-test
#[cfg(feature = "plot")]
#[test]
fn text_stands_on_its_baseline() -> Result<(), Box<dyn std::error::Error>> {
    {
        let mut page = Page::new(300, 60);
        page.text((20.0, 40.0), Align::Left, 20.0, [0, 0, 0], "HHHHHHHH");
        let figure = Figure { page, title: String::new(), description: String::new() };
        let mut reader = png::Decoder::new(std::io::Cursor::new(figure.png())).read_info()?;
        let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut rgb)?;
        let dark: Vec<(usize, usize)> =
            (0..600 * 120).filter(|i| rgb[i * 3] < 128).map(|i| (i % 600, i / 600)).collect();
        let rows = (dark.iter().map(|p| p.1).min(), dark.iter().map(|p| p.1).max());
        let columns = (dark.iter().map(|p| p.0).min().unwrap(), dark.iter().map(|p| p.0).max().unwrap());
        assert!((79..=80).contains(&rows.1.unwrap()), "{rows:?}"); // the baseline, 40 CSS pixels down
        assert!((50..=52).contains(&rows.0.unwrap()), "{rows:?}"); // a capital is 0.73 em high
        let width = 2.0 * text_width("HHHHHHHH", 20.0);
        assert!(((columns.1 - columns.0) as f64 - width).abs() < 10.0, "{columns:?}, {width}");
    }
    println!("passed");
    Ok(())
}

// %% notebooks/90_plot.ipynb save-test
#[cfg(feature = "plot")]
#[test]
fn save_replaces_and_leaves_nothing_behind() -> Result<(), Box<dyn std::error::Error>> {
    {
        let folder = std::env::temp_dir().join(format!("minai-plot-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let figure = Figure { page: Page::new(20, 20), title: "t".into(), description: "d".into() };
        figure.save(folder.join("a.png"))?;
        figure.save(folder.join("a.svg"))?;
        figure.save(folder.join("a.svg"))?; // replaces
        assert!(std::fs::read(folder.join("a.png"))?.starts_with(b"\x89PNG\r\n\x1a\n"));
        assert_eq!(std::fs::read_to_string(folder.join("a.svg"))?, figure.svg());
        assert_eq!(std::fs::read_dir(&folder)?.count(), 2);
        let wrong = figure.save(folder.join("a.gif")).unwrap_err().to_string();
        assert!(wrong.contains("a.gif") && wrong.contains(".png or .svg"), "{wrong}");
        let missing = figure.save(folder.join("none").join("a.png")).unwrap_err().to_string();
        assert!(missing.contains("none"), "{missing}");
        std::fs::remove_dir_all(&folder)?;
    }
    println!("passed");
    Ok(())
}

// %% notebooks/90_plot.ipynb number-test
#[cfg(feature = "plot")]
#[test]
fn numbers_are_short_and_readable() -> Result<(), Box<dyn std::error::Error>> {
    {
        for (value, text) in [
            (0.0, "0"),
            (-0.00001, "−1×10⁻⁵"),
            (0.1 + 0.2, "0.3"),
            (-2.5, "−2.5"),
            (12.34567, "12.35"),
            (60_000.0, "60,000"),
            (1234.5678, "1235"),
            (123_456.7, "123,457"),
            (6.02214e23, "6.022×10²³"),
            (0.99999, "1"),
            (1e-310, "1×10⁻³¹⁰"),
            (999_999.7, "1×10⁶"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(number(value), text);
        }
    }
    println!("passed");
    Ok(())
}

// %% notebooks/90_plot.ipynb labels-test
#[cfg(feature = "plot")]
#[test]
fn numbers_on_an_axis_never_overlap() -> Result<(), Box<dyn std::error::Error>> {
    {
        // Each text of an SVG with the x and y of its place, in tenths of a CSS pixel.
        let texts = |svg: &str| -> Vec<(f64, f64, String)> {
            let value = |tag: &str, name: &str| {
                tag.split(name).nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
            };
            let parts = svg.split("<text ").skip(1).map(|part| part.split_once(">\n").unwrap());
            parts
                .map(|(tag, rest)| {
                    (value(tag, "x=\""), value(tag, " y=\""), rest.lines().next().unwrap().into())
                })
                .collect()
        };
        for lo in [0.0, 0.1, -3.0, 1e5, 1e-7, -2e9, 3.00001] {
            for width in [1e-6, 0.004, 1.0, 37.0, 8e4, 5e9, 1e24] {
                for size in [(640, 400), (300, 200), (1200, 500)] {
                    let figure =
                        plot("", Axes { size, ..Axes::default() }, [line("", [lo, lo + width], [1.0, 2.0])]);
                    let all = texts(&figure.svg());
                    let row = all.iter().map(|t| t.1).fold(0.0, f64::max); // the lowest texts: numbers of the x axis
                    let numbers: Vec<_> = all.iter().filter(|t| t.1 == row).collect();
                    assert!(!numbers.is_empty() && numbers.len() < 25, "{lo} {width}: {numbers:?}");
                    for pair in numbers.windows(2) {
                        let [left, right] = [pair[0], pair[1]].map(|t| 5.0 * text_width(&t.2, 12.0));
                        assert!(
                            pair[0].0 + left + 50.0 < pair[1].0 - right,
                            "{lo} {width} {size:?}: {pair:?}"
                        );
                    }
                }
            }
        }
    }
    println!("passed");
    Ok(())
}

// %% notebooks/90_plot.ipynb log-test
#[cfg(feature = "plot")]
#[test]
fn powers_of_ten_are_equally_far_apart() -> Result<(), Box<dyn std::error::Error>> {
    {
        let log = Axes { x_scale: Scale::Log, y_scale: Scale::Log, ..axes("", "") };
        let svg = plot("", log, [line("", [1e-8, 1e8], [1e-2, 1e3])]).svg();
        let place = |label: &str, name: &str| -> f64 {
            let tag = svg.split("<text ").find(|part| part.contains(&format!(">\n{label}\n"))).expect(label);
            tag.split(name).nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
        };
        let y = ["1000", "100", "10", "1", "0.1", "0.01"].map(|label| place(label, " y=\""));
        let x = ["10⁻⁸", "10⁻⁶", "10⁻⁴", "10⁻²", "10⁰", "10²", "10⁴", "10⁶", "10⁸"]
            .map(|label| place(label, "x=\""));
        for places in [&x[..], &y[..]] {
            let steps: Vec<f64> = places.windows(2).map(|p| p[1] - p[0]).collect();
            assert!(steps.iter().all(|step| *step > 100.0 && (step - steps[0]).abs() <= 2.0), "{steps:?}");
        }
    }
    println!("passed");
    Ok(())
}

// %% notebooks/90_plot.ipynb gap-test
#[cfg(feature = "plot")]
#[test]
fn a_missing_value_leaves_a_gap() -> Result<(), Box<dyn std::error::Error>> {
    {
        let svg = |y: [f64; 7]| plot("", axes("", ""), [line("", 0.., y)]).svg();
        let lines = |svg: &str| svg.matches("stroke=\"#005096\"").count(); // the first series' colour
        assert_eq!(lines(&svg([1.0, 2.0, 3.0, 4.0, 3.0, 2.0, 1.0])), 1);
        assert_eq!(lines(&svg([1.0, 2.0, 3.0, f64::NAN, 3.0, 2.0, 1.0])), 2);
        assert_eq!(lines(&svg([f64::INFINITY, 2.0, 3.0, 4.0, 3.0, 2.0, f64::NEG_INFINITY])), 1);
        let lone = svg([1.0, 2.0, f64::NAN, 4.0, f64::NAN, 2.0, 1.0]);
        assert_eq!((lines(&lone), lone.matches("<circle").count()), (2, 1)); // a value between two gaps is a dot
        let log = Axes { y_scale: Scale::Log, ..Axes::default() };
        assert_eq!(lines(&plot("", log, [line("", 0.., [1.0, 2.0, 0.0, -1.0, 3.0, 4.0])]).svg()), 2);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/90_plot.ipynb clip-test
#[cfg(feature = "plot")]
#[test]
fn a_line_stays_inside_the_frame() -> Result<(), Box<dyn std::error::Error>> {
    {
        let figure = plot(
            "",
            Axes { y_range: Some((-1.0, 1.0)), ..Axes::default() },
            [curve("", 0.0..=20.0, |x| 3.0 * x.sin())],
        );
        let svg = figure.svg();
        let points = svg
            .split("<polyline ")
            .filter(|tag| tag.contains("#005096"))
            .map(|tag| tag.split("points=\"").nth(1).unwrap().split('"').next().unwrap());
        let y = |points: &str| -> Vec<i32> {
            points.split_whitespace().map(|p| p.split(',').nth(1).unwrap().parse().unwrap()).collect()
        };
        let pieces: Vec<Vec<i32>> = points.map(y).collect();
        assert_eq!(pieces.len(), 7); // 3 sin x crosses from above 1 to below −1, or back, at each multiple of π up to 20
        let (top, bottom) = (pieces[0].iter().min().unwrap().min(&240).to_owned(), 3680);
        assert!(pieces.iter().flatten().all(|y| (top..=bottom).contains(y)) && top >= 160, "{pieces:?}");
    }
    println!("passed");
    Ok(())
}

// %% notebooks/90_plot.ipynb thin-test
#[cfg(feature = "plot")]
#[test]
fn a_long_line_keeps_its_spikes() -> Result<(), Box<dyn std::error::Error>> {
    {
        let mut y = vec![0.0; 200_000];
        (y[77_777], y[150_001]) = (5.0, -5.0);
        let svg = plot("t", axes("x", "y"), [line("", 0.., &y)]).svg();
        assert!(svg.len() < 100_000, "{} bytes for 200,000 points", svg.len());
        let tag = svg.split("<polyline ").find(|tag| tag.contains("#005096")).unwrap();
        let points = tag.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        let place =
            |point: &str| point.split_once(',').map(|(x, y)| [x, y].map(|v| v.parse::<i32>().unwrap()));
        let points: Vec<[i32; 2]> = points.split_whitespace().filter_map(place).collect();
        let (left, right) = (points[0][0], points[points.len() - 1][0]);
        let share = |p: &[i32; 2]| f64::from(p[0] - left) / f64::from(right - left);
        let top = points.iter().min_by_key(|p| p[1]).unwrap();
        let bottom = points.iter().max_by_key(|p| p[1]).unwrap();
        assert!((share(top) - 77_777.0 / 199_999.0).abs() < 1e-3, "{top:?}");
        assert!((share(bottom) - 150_001.0 / 199_999.0).abs() < 1e-3, "{bottom:?}");
        assert!((points[0][1] * 2 - top[1] - bottom[1]).abs() <= 2);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/90_plot.ipynb empty-test
#[cfg(feature = "plot")]
#[test]
fn nothing_to_draw_is_said_and_drawn() -> Result<(), Box<dyn std::error::Error>> {
    {
        let none: [f64; 0] = [];
        for figure in [
            plot("t", axes("x", "y"), []),
            plot("t", axes("x", "y"), [line("a", &none, &none)]),
            plot("t", axes("x", "y"), [line("a", 0.., [f64::NAN; 3])]),
        ] {
            assert!(figure.svg().contains("nothing to draw"), "{}", figure.description);
        }
        for y in [[5.0, 5.0], [0.0, 0.0], [-1e308, 1e308], [1e-310, 2e-310], [f64::MAX, f64::MIN]] {
            let svg =
                plot("t", axes("x", "y"), [line("a", [1e18, 1e18], y), scatter("b", [0.0, 0.0], y)]).svg();
            assert!(!svg.contains("nothing") && !svg.contains("NaN") && !svg.contains("inf"), "{y:?}");
        }
    }
    println!("passed");
    Ok(())
}

// %% notebooks/90_plot.ipynb lengths-test
#[cfg(feature = "plot")]
#[test]
#[should_panic]
fn x_and_y_must_match() {
    line("train", [0.0, 1.0, 2.0], [0.5, 0.25]);
}

// %% notebooks/90_plot.ipynb backwards-test
#[cfg(feature = "plot")]
#[test]
#[should_panic]
fn a_range_that_runs_backwards_is_refused() {
    plot("t", Axes { x_range: Some((1.0, 0.0)), ..Axes::default() }, [line("", 0.., [1, 2])]);
}

// %% notebooks/90_plot.ipynb types-test
#[cfg(feature = "plot")]
#[test]
fn every_kind_of_number_makes_the_same_picture() -> Result<(), Box<dyn std::error::Error>> {
    {
        let svg = |series: Series| plot("t", axes("x", "y"), [series]).svg();
        let expected = svg(line("a", [0.0, 1.0, 2.0], [3.0, 4.0, 6.0]));
        assert_eq!(svg(line("a", 0.., [3u8, 4, 6])), expected);
        assert_eq!(svg(line("a", 0..3, [3.0f32, 4.0, 6.0].as_slice())), expected);
        assert_eq!(svg(line("a", vec![0usize, 1, 2], [3i64, 4, 6].iter())), expected);
        assert_eq!(svg(line("a", 0.., [3, 4, 6].iter().map(|y| y * 2 / 2))), expected);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/90_plot.ipynb hist-test
#[cfg(feature = "plot")]
#[test]
fn a_histogram_counts_every_value_once() -> Result<(), Box<dyn std::error::Error>> {
    {
        let figure = hist("t", axes("x", "n"), [0.0, 0.1, 0.2, 0.9, 1.0, f64::NAN, f64::INFINITY], 2);
        assert!(
            figure.description.starts_with("Histogram of 5 values from 0 to 1 in 2 intervals"),
            "{}",
            figure.description
        );
        assert!(
            figure.description.contains("from 0 to 0.5, holds 3. Not shown: 2"),
            "{}",
            figure.description
        );
        // The heights of the bars: 3 and 2.
        let svg = figure.svg();
        let height = |polygon: &str| {
            let y: Vec<f64> = polygon
                .split("points=\"")
                .nth(1)
                .unwrap()
                .split('"')
                .next()
                .unwrap()
                .split_whitespace()
                .map(|p| p.split(',').nth(1).unwrap().parse().unwrap())
                .collect();
            y[0] - y[2]
        };
        let heights: Vec<f64> = svg.split("<polygon ").skip(1).map(height).collect();
        assert_eq!(heights.len(), 2);
        assert!((heights[0] / heights[1] - 1.5).abs() < 0.01, "{heights:?}");
        let log = Axes { x_scale: Scale::Log, ..axes("x", "n") };
        assert!(
            hist("t", log, [1.0, 9.0, 11.0, 100.0, 0.0], 2).description.contains("holds 2. Not shown: 1")
        );
        assert!(hist("t", axes("x", "n"), [0.0; 0], 5).svg().contains("nothing to draw"));
    }
    println!("passed");
    Ok(())
}

// %% notebooks/90_plot.ipynb bar-test
#[cfg(feature = "plot")]
#[test]
fn bars_carry_their_names_and_values() -> Result<(), Box<dyn std::error::Error>> {
    {
        let up = bar("t", axes("digit", "images"), (0..10).zip([5923; 10]));
        assert!(up.description.starts_with("Bars of images: 0 5923, 1 5923,"), "{}", up.description);
        assert_eq!(up.svg().matches(">\n5923\n").count(), 10);
        let long = bar("t", axes("", "s"), (0..12).map(|i| (format!("a rather long name, number {i}"), i)));
        let svg = long.svg();
        assert!((0..12).all(|i| svg.contains(&format!(">\na rather long name, number {i}\n"))));
        assert!(bar("t", axes("", ""), [("a", -1.0), ("b", 2.0), ("c", f64::NAN)]).svg().contains(">\n−1\n"));
        for values in [[0.0, 0.0], [f64::NAN, f64::NAN], [-2.0, -1.0], [1e308, -1e308]] {
            let svg = bar("t", axes("", ""), ["a", "b"].into_iter().zip(values)).svg();
            assert!(!svg.contains(">\nNaN\n") && !svg.contains(">\ninf\n"), "{values:?}");
        }
        assert!(bar("t", axes("", ""), [("", 1); 0]).svg().contains("nothing to draw"));
    }
    println!("passed");
    Ok(())
}

// %% notebooks/90_plot.ipynb imshow-test
#[cfg(feature = "plot")]
#[test]
fn imshow_puts_every_pixel_in_its_place() -> Result<(), Box<dyn std::error::Error>> {
    {
        // Image and texts of 2 by 3 numbers, ten screen pixels per CSS pixel's side: read back from the PNG.
        let look = Look { colors: Colors::Viridis, zoom: Some(10), ..Look::default() };
        let figure = imshow("t", [0.0, 8.0, f64::NAN, 4.0, 2.0, 6.0], (2, 3), look);
        let mut reader = png::Decoder::new(std::io::Cursor::new(figure.png())).read_info()?;
        let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
        let width = reader.next_frame(&mut rgb)?.width as usize;
        let at = |x: usize, y: usize| [0, 1, 2].map(|c| rgb[(y * width + x) * 3 + c]);
        let dark =
            (0..rgb.len() / 3).find(|&i| rgb[i * 3..i * 3 + 3] == [68, 1, 84]).expect("the smallest number");
        let (left, top) = (dark % width, dark / width); // the image's corner
        let corners = |row: usize, column: usize| {
            let (x, y) = (left + 20 * column, top + 20 * row);
            [at(x, y), at(x + 19, y), at(x, y + 19), at(x + 19, y + 19)]
        };
        assert_eq!(corners(0, 0), [[68, 1, 84]; 4]);
        assert_eq!(corners(0, 1), [[253, 231, 37]; 4]);
        assert_eq!(corners(0, 2), [[255, 0, 200]; 4]); // NaN
        assert_eq!(corners(1, 0), [[33, 145, 140]; 4]);
        assert_eq!(corners(1, 1), [[59, 82, 139]; 4]);
        assert_eq!(corners(1, 2), [[94, 201, 98]; 4]);
        assert_eq!(
            [at(left - 1, top), at(left, top - 1), at(left + 60, top), at(left, top + 40)],
            [[255; 3]; 4]
        );
    }
    println!("passed");
    Ok(())
}

// %% notebooks/90_plot.ipynb rgb-test
#[cfg(feature = "plot")]
#[test]
fn colours_come_interleaved_or_in_planes() -> Result<(), Box<dyn std::error::Error>> {
    {
        let look = |colors| Look { colors, ..Look::default() };
        let pixels = imshow("t", [1.0, 0.0, 0.5, 0.0, 1.0, 2.0], (1, 2), look(Colors::Rgb)).svg();
        let planes = imshow("t", [1.0, 0.0, 0.0, 1.0, 0.5, 2.0], (1, 2), look(Colors::RgbPlanes)).svg();
        assert_eq!(pixels, planes);
        assert_eq!(pixels.matches("<image ").count(), 1); // no scale
    }
    println!("passed");
    Ok(())
}

// %% notebooks/90_plot.ipynb shape-test
#[cfg(feature = "plot")]
#[test]
#[should_panic]
fn numbers_must_fill_the_shape() {
    imshow("t", [0.0; 783], (28, 28), Look::default());
}

// %% notebooks/90_plot.ipynb images-test
#[cfg(feature = "plot")]
#[test]
fn images_stand_in_a_grid() -> Result<(), Box<dyn std::error::Error>> {
    {
        let images = (0..6).map(|i| (i, [i as f64; 4])); // six images of 2 by 2 pixels, brighter and brighter
        let figure = show_images("t", images, (2, 2), Look { zoom: Some(8), ..Look::default() });
        let mut reader = png::Decoder::new(std::io::Cursor::new(figure.png())).read_info()?;
        let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
        let width = reader.next_frame(&mut rgb)?.width as usize;
        let at = |x: usize, y: usize| [0, 1, 2].map(|c| rgb[(2 * y * width + 2 * x) * 3 + c]);
        let top = 42; // below a title of one line
        for i in 0..6 {
            // Columns 16 + 12 apart; rows 16 + 20 for the caption + 12 apart.
            let (left, top) = (12 + i % 3 * 28, top + i / 3 * 48);
            let grey = [(i * 51) as u8; 3];
            assert_eq!([at(left, top), at(left + 15, top + 15)], [grey; 2], "image {i}");
            assert_eq!(
                [at(left - 1, top), at(left, top - 1), at(left + 16, top)],
                [[255; 3]; 3],
                "image {i}"
            );
        }
        let svg = figure.svg();
        assert!((0..6).all(|i| svg.contains(&format!(">\n{i}\n"))));
        assert!(
            show_images("t", [("", [0.0; 4]); 0], (2, 2), Look::default()).svg().contains("nothing to draw")
        );
    }
    println!("passed");
    Ok(())
}

// %% notebooks/90_plot.ipynb animate-test
#[cfg(feature = "plot")]
#[test]
fn an_animation_holds_every_frame() -> Result<(), Box<dyn std::error::Error>> {
    {
        // A white spot that moves over six by six black pixels, and stays for the last two frames.
        let frame = |at: usize| {
            let pixels: Vec<f64> = (0..36).map(|i| f64::from(i == at)).collect();
            imshow(
                format!("at {at}"),
                &pixels,
                (6, 6),
                Look { range: Some((0.0, 1.0)), zoom: Some(16), ..Look::default() },
            )
        };
        let animation = animate("A spot", [0, 7, 35, 35].map(frame), 0.25);
        let mut reader = png::Decoder::new(std::io::Cursor::new(animation.png())).read_info()?;
        let control = *reader.info().animation_control().expect("an animation");
        assert_eq!((control.num_frames, control.num_plays), (4, 0));
        let (width, height) = (reader.info().width as usize, reader.info().height as usize);
        // Put each frame's rectangle on what was there before, as a browser does, and count the white in the pixels' places.
        let mut screen = vec![0; width * height * 3];
        let mut buffer = vec![0; reader.output_buffer_size().unwrap()];
        let mut screens = Vec::new();
        for _ in 0..4 {
            reader.next_frame(&mut buffer)?;
            let control = *reader.info().frame_control().expect("a frame of an animation");
            assert_eq!((control.delay_num, control.delay_den), (250, 1000));
            let [left, top, w, h] =
                [control.x_offset, control.y_offset, control.width, control.height].map(|n| n as usize);
            for y in 0..h {
                let to = ((top + y) * width + left) * 3;
                screen[to..to + w * 3].copy_from_slice(&buffer[y * w * 3..][..w * 3]);
            }
            screens.push(screen.clone());
        }
        for (screen, figure) in screens.iter().zip(&animation.frames) {
            // The same picture on its own has two pixels per CSS pixel: four of them make one of ours.
            let mut reader = png::Decoder::new(std::io::Cursor::new(figure.png())).read_info()?;
            assert_eq!(reader.info().size(), (2 * width as u32, 2 * height as u32));
            let mut fine = vec![0; reader.output_buffer_size().unwrap()];
            reader.next_frame(&mut fine)?;
            for (y, x, c) in
                [(60, 20, 0), (70, 40, 1), (height - 20, width / 2, 2), (120, 100, 0), (8, 14, 0)]
            {
                let at =
                    |dy: usize, dx: usize| u32::from(fine[((2 * y + dy) * 2 * width + 2 * x + dx) * 3 + c]);
                let mean = (at(0, 0) + at(0, 1) + at(1, 0) + at(1, 1) + 2) / 4;
                assert_eq!(
                    u32::from(screen[(y * width + x) * 3 + c]),
                    mean,
                    "{}: row {y}, column {x}",
                    figure.title
                );
            }
        }
        assert!(screens[0] != screens[1] && screens[1] != screens[2] && screens[2] == screens[3]);
        let words = animation.description();
        assert!(
            words.starts_with("4 pictures") && words.contains("First: at 0") && words.contains("Last: at 35")
        );
        assert_eq!(animation.save("spot.gif").unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/90_plot.ipynb animate-test-sizes
#[cfg(feature = "plot")]
#[test]
#[should_panic]
fn an_animation_refuses_figures_of_other_sizes() {
    {
        let figure =
            |w: usize| imshow("t", vec![0.0; w * 4], (4, w), Look { zoom: Some(50), ..Look::default() });
        animate("Growing", [figure(4), figure(40)], 1.0);
    }
}
