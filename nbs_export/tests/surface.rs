//! What a program can use of the crate `minai`: `minai/surface.txt` lists it, so that a change to it is seen in a review.
//!
//! `MINAI_SURFACE=write cargo test -p nbs_export --test surface` writes the list anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use syn::{ImplItem, Item, TraitItem, Visibility};

/// Tokens as people write them, nearly.
fn text(tokens: impl quote::ToTokens) -> String {
    let text = tokens.to_token_stream().to_string();
    let tight = [
        (" ,", ","),
        (" ::", "::"),
        (":: ", "::"),
        ("& ", "&"),
        (" (", "("),
        ("( ", "("),
        (" )", ")"),
        (" <", "<"),
        ("< ", "<"),
        (" >", ">"),
        ("[ ", "["),
        (" ]", "]"),
        (" :", ":"),
        (" ;", ";"),
        (" .", "."),
        (". ", "."),
    ];
    tight.iter().fold(text, |text, (from, to)| text.replace(from, to))
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// A line for each public item of a file.
fn items(module: &str, items: &[Item], lines: &mut BTreeSet<String>) {
    let mut line = |text: String| {
        lines.insert(format!("{module}: {text}"));
    };
    for item in items {
        match item {
            Item::Fn(item) if is_public(&item.vis) => line(text(&item.sig)),
            Item::Const(item) if is_public(&item.vis) => {
                line(format!("const {}: {}", item.ident, text(&item.ty)))
            }
            Item::Type(item) if is_public(&item.vis) => {
                line(format!("type {} = {}", item.ident, text(&item.ty)))
            }
            Item::Struct(item) if is_public(&item.vis) => {
                let name = format!("{}{}", item.ident, text(&item.generics));
                line(format!("struct {name}"));
                for field in item.fields.iter().filter(|field| is_public(&field.vis)) {
                    let field_name = field.ident.as_ref().map_or("0".into(), ToString::to_string);
                    line(format!("{name}.{field_name}: {}", text(&field.ty)));
                }
            }
            Item::Enum(item) if is_public(&item.vis) => {
                line(format!("enum {}", item.ident));
                item.variants.iter().for_each(|variant| {
                    line(format!("{}::{}{}", item.ident, variant.ident, text(&variant.fields)))
                });
            }
            Item::Trait(item) if is_public(&item.vis) => {
                line(format!("trait {}", item.ident));
                for part in &item.items {
                    if let TraitItem::Fn(part) = part {
                        line(format!("{}::{}", item.ident, text(&part.sig)));
                    }
                }
            }
            Item::Impl(item) if item.trait_.is_none() => {
                for part in &item.items {
                    if let ImplItem::Fn(part) = part
                        && is_public(&part.vis)
                    {
                        line(format!("{}::{}", text(&item.self_ty), text(&part.sig)));
                    }
                }
            }
            Item::Use(item) if is_public(&item.vis) => line(text(item)),
            _ => {}
        }
    }
}

#[test]
fn the_public_surface_is_what_the_list_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut lines = BTreeSet::new();
    // What the course builds; kernels and io are for those who look for them.
    for entry in fs::read_dir(root.join("minai/src")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "rs") {
            let file = syn::parse_file(&fs::read_to_string(&path).unwrap()).unwrap();
            items(&path.file_stem().unwrap().to_string_lossy(), &file.items, &mut lines);
        }
    }
    let found = lines.into_iter().collect::<Vec<_>>().join("\n") + "\n";
    let list = root.join("minai/surface.txt");
    if std::env::var_os("MINAI_SURFACE").is_some_and(|value| value == "write") {
        fs::write(&list, &found).unwrap();
    }
    let known = fs::read_to_string(&list).unwrap_or_default();
    let (found, known): (BTreeSet<_>, BTreeSet<_>) = (found.lines().collect(), known.lines().collect());
    let new: Vec<_> = found.difference(&known).collect();
    let gone: Vec<_> = known.difference(&found).collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "the public surface has changed.\nnew: {new:#?}\ngone: {gone:#?}\nIf that is meant: MINAI_SURFACE=write cargo test -p nbs_export --test surface"
    );
}
