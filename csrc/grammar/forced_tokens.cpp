// Forced text as tokens. The tokenizer's cut of a text depends on what follows: `"` may become `"\n`, a blank may join
// the next word. A byte-pair tokenizer has one property that helps: if its cut of a whole text has a boundary
// somewhere, the part before that boundary is cut as it would be alone. So every place where the last boundary inside
// the forced text can lie is tried, and only the tokens that all cuts share are certain. Such a place is one where some
// token of the vocabulary begins, runs over the end of the forced text, and goes on in a way that the grammar allows.
#include <algorithm>

#include "grammar/matcher.h"

namespace ltm::grammar {
namespace {

// Tokens of context that a cut is repeated over. What stands further back can't matter to a cut that began at a
// boundary, except for pre-tokenizers that look back at a run of digits or blanks; if in doubt the whole document is
// cut again.
constexpr std::size_t kContext = 12;

// A character of each sort that pre-tokenizers tell apart.
constexpr std::uint32_t kProbes[] = {'a', 'Z',  '7',  '.',   '"',    '(',     '\'',  '_',
                                     ' ', '\n', '\t', 0x44F, 0x4E2D, 0x1F600, 0x301, 0xA0};

class Cutter {
  public:
    Cutter(const MaskCache& cache, const Tokenize& tokenize) : vocab_(cache.vocab()), tokenize_(tokenize) {}

    // Cuts `text`; empty if the tokens don't spell it (unknown characters, control tokens).
    std::vector<std::uint32_t> cut(std::string_view text) const {
        if (text.empty()) return {};
        std::vector<std::uint32_t> tokens = tokenize_(text);
        std::size_t at = 0;
        for (std::size_t i = 0; i < tokens.size(); ++i) {
            const bool usable = tokens[i] < vocab_.size() && vocab_.kind(tokens[i]) == TokenKind::text;
            if (!usable || text.substr(at, vocab_.piece(tokens[i]).size()) != vocab_.piece(tokens[i])) {
                tokens.resize(i);
                break;
            }
            at += vocab_.piece(tokens[i]).size();
        }
        return tokens;
    }

    // Drops the tokens that go past the first `length` bytes.
    void trim(std::vector<std::uint32_t>& tokens, std::size_t length) const {
        std::size_t at = 0;
        for (std::size_t i = 0; i < tokens.size(); ++i) {
            at += vocab_.piece(tokens[i]).size();
            if (at > length) {
                tokens.resize(i);
                return;
            }
        }
    }

  private:
    const Vocab& vocab_;
    const Tokenize& tokenize_;
};

void keep_common(std::vector<std::uint32_t>& tokens, const std::vector<std::uint32_t>& other) {
    const auto differs = std::mismatch(tokens.begin(), tokens.end(), other.begin(), other.end()).first;
    tokens.erase(differs, tokens.end());
}

}  // namespace

ForcedTokens Matcher::forced_tokens(const Tokenize& tokenize, std::size_t may_replace,
                                    std::optional<std::uint32_t> budget) const {
    ForcedTokens result;
    if (finished_ || !state().partial.none()) return result;
    State after = state();
    std::string forced = cache_->forced(after, cache_->grammar().limits().forced_bytes);
    if (!after.partial.none()) {
        // The last character is only begun: leave it out.
        const auto begun = static_cast<std::size_t>(after.partial.length() - after.partial.missing());
        forced.resize(forced.size() - begun);
        after = state();
        if (!cache_->advance_bytes(after, forced, Work::continued)) return result;
    }
    if (forced.empty()) return result;

    const Cutter cutter(*cache_, tokenize);
    const Vocab& vocab = cache_->vocab();
    const std::size_t accepted = tokens_.size();

    // Where the cut must agree with what was accepted: all of the context but the tokens that may be replaced.
    std::size_t replace = 0;
    std::size_t from = accepted > kContext ? accepted - kContext : 0;
    std::string context;
    for (bool again = true; again;) {
        context.clear();
        for (std::size_t i = from; i < accepted; ++i) context += vocab.piece(tokens_[i]);
        const std::vector<std::uint32_t> whole = cutter.cut(context + forced);
        const std::size_t n = accepted - from;
        std::size_t agreed = 0;
        while (agreed < n && agreed < whole.size() && whole[agreed] == tokens_[from + agreed]) ++agreed;
        replace = n - agreed;
        if (replace <= may_replace) break;
        again = from > 0;
        if (again) {
            from = 0;
        } else {
            // The document so far is not as the tokenizer would have cut it: go on from where it stands.
            from = accepted;
            replace = 0;
            context.clear();
        }
    }

    // The text whose cut is in question: the tokens that may be replaced, then the forced bytes.
    std::size_t start = context.size();
    for (std::size_t i = accepted - replace; i < accepted; ++i) start -= vocab.piece(tokens_[i]).size();
    const std::string text = context + forced;
    const bool open = cache_->open(after);

    // What stands in the context is there already, apart from what is to be replaced.
    const std::size_t kept = accepted - from - replace;
    std::vector<std::uint32_t> certain;
    bool first = true;
    const auto hopeless = [&] { return !first && certain.size() <= kept; };
    const auto consider = [&](std::vector<std::uint32_t> tokens) {
        if (first) {
            certain = std::move(tokens);
        } else {
            keep_common(certain, tokens);
        }
        first = false;
    };
    if (cache_->complete(after)) consider(cutter.cut(text));
    if (open) {
        // The last boundary at the very end of the forced text: seen with one character of each sort behind it.
        bool probed = false;
        for (const std::uint32_t probe : kProbes) {
            if (hopeless()) break;
            std::string next;
            append_utf8(next, probe);
            State there = after;
            if (!cache_->advance_bytes(there, next, Work::continued)) continue;
            std::vector<std::uint32_t> tokens = cutter.cut(text + next);
            cutter.trim(tokens, text.size());
            consider(std::move(tokens));
            probed = true;
        }
        if (!probed) consider(cutter.cut(text));
        // The last boundary earlier, with a token across the end.
        const std::size_t reach = std::min(text.size() - start, vocab.longest());
        for (std::size_t back = 1; back <= reach && !hopeless(); ++back) {
            const std::size_t at = text.size() - back;
            std::uint32_t node = 0;
            for (std::size_t i = at; i < text.size(); ++i) {
                node = vocab.child(node, static_cast<std::uint8_t>(text[i]));
                if (node == 0) break;
            }
            if (node == 0 || !cache_->continues(after, node, Work::continued)) continue;
            consider(cutter.cut(std::string_view(text).substr(0, at)));
        }
    }

    if (hopeless()) return result;
    State at = states_[accepted - replace];
    std::size_t length = start;
    for (std::size_t i = kept; i < certain.size(); ++i) {
        State next = at;
        if (!cache_->advance(next, certain[i], Work::continued)) break;
        const std::size_t used = result.tokens.size() + 1;
        if (budget && (used > *budget + replace || cache_->cost(next, Work::continued) > *budget + replace - used))
            break;
        at = next;
        length += vocab.piece(certain[i]).size();
        result.tokens.push_back(certain[i]);
    }
    // Replacing is worth it only if it gets further than the text that was there.
    if (replace > 0 && length <= context.size()) return {};
    result.replace = replace;
    return result;
}

}  // namespace ltm::grammar
