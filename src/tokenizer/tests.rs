use super::*;

#[test]
fn encoding_follows_the_models_name() {
    for (model, encoding) in [
        ("gpt-4o-mini", Encoding::O200k),
        ("gpt-4.1-nano", Encoding::O200k),
        ("gpt-5", Encoding::O200k),
        ("o3", Encoding::O200k),
        ("ft:gpt-4o-mini-2024-07-18:acme::id", Encoding::O200k),
        ("claude-sonnet-4-5", Encoding::O200k),
        ("llama3.2", Encoding::O200k),
        ("", Encoding::O200k),
        ("gpt-4", Encoding::Cl100k),
        ("gpt-4-turbo-2024-04-09", Encoding::Cl100k),
        ("openai/gpt-3.5-turbo", Encoding::Cl100k),
        ("ft:gpt-3.5-turbo:acme::id", Encoding::Cl100k),
        ("text-embedding-3-small", Encoding::Cl100k),
    ] {
        assert_eq!(Encoding::of_model(model), encoding, "{model}");
    }
}

#[test]
fn allowance_of_a_thread_is_bounded() {
    // A thread of its own: the tests' threads may have spent some.
    let spender = std::thread::spawn(|| {
        assert!(!spend(ALLOWANCE_BYTES + 1), "what does not fit is not taken");
        let parts = (0..1_000).filter(|_| spend(SAMPLE_BYTES)).count();
        let (since, _) = SPENT.get().unwrap();
        // A slow machine may have been given a second allowance.
        (parts, since.elapsed())
    });
    let (parts, _) = spender.join().unwrap();
    assert!((32..=64).contains(&parts), "{parts}");
}

#[cfg(feature = "tokenizer")]
mod with_the_vocabulary {
    use super::*;

    const MODELS: [&str; 2] = ["gpt-4o", "gpt-4"];

    fn ready() {
        for model in MODELS {
            prepare(model);
            let deadline = Instant::now() + Duration::from_secs(60);
            while vocabulary::count(Encoding::of_model(model), "").is_none() {
                assert!(Instant::now() < deadline, "the vocabulary does not load");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    #[test]
    fn known_texts_have_known_counts() {
        ready();
        // Three implementations agree on these: bpe-openai, tiktoken-rs and this one.
        for (text, o200k, cl100k) in [
            ("", 0, 0),
            ("hello world", 2, 2),
            ("You are a helpful assistant.", 6, 6),
            ("The quick brown fox jumps over the lazy dog.", 10, 10),
            ("Grüße €", 4, 4),
        ] {
            for (model, tokens) in MODELS.into_iter().zip([o200k, cl100k]) {
                assert_eq!(count(model, &[text]), (tokens, Method::Tokenizer), "{model} {text}");
            }
        }
        assert_eq!(count("gpt-4o", &["hello", " world"]), (2, Method::Tokenizer));
        // In a text it is no special token.
        assert!(count("gpt-4o", &["<|endoftext|>"]).0 > 1);
    }

    #[test]
    fn long_text_is_sampled_and_counted_in_proportion() {
        ready();
        let text = include_str!("../../docs/operations.md");
        let encoding = Encoding::O200k;
        for copies in [3, 20] {
            let long = text.repeat(copies);
            assert!(long.len() > SAMPLE_BYTES);
            let exact = vocabulary::count(encoding, &long).unwrap();
            let sampled = with_vocabulary(encoding, &[&long], long.len()).unwrap();
            let error = sampled.abs_diff(exact) as f64 / exact as f64;
            assert!(error < 0.1, "{sampled} for {exact}");
        }
    }

    #[test]
    fn characters_are_within_a_third_of_the_vocabulary() {
        ready();
        for text in [
            include_str!("../../docs/content.md"),
            include_str!("../tokenizer.rs"),
            "Das Gateway liest die Anfrage, stellt fest, welche Version gilt, und schickt den fertigen Text an den Anbieter.",
            "网关读取请求，确定当前生效的提示版本，并将完成的文本发送给供应商。",
        ] {
            let exact = vocabulary::count(Encoding::O200k, text).unwrap() as f64;
            let guess = TextSize::of(text).tokens() as f64;
            assert!(
                (0.65..1.35).contains(&(guess / exact)),
                "{guess} for {exact}: {text:.40}"
            );
        }
    }
}
