#include "engine/copying.h"

#include <algorithm>

namespace ltm {
namespace {

constexpr std::size_t kShortest = 2;  // tokens that must match; one matches too often by chance
constexpr std::size_t kLongest = 8;   // longer matches tell no more
constexpr std::size_t kMost = 48;     // tokens in a proposal; beyond that a batch gains little
constexpr double kLossLimitMs = 4.0;  // in decodes: what proposals may cost in all before copying is given up

}  // namespace

Copying::Place Copying::find(const std::vector<llama_token>& text) const {
    if (text.size() < kShortest) return {};
    Place best;
    std::size_t best_length = kShortest - 1;
    bool best_ahead = false;
    for (std::size_t r = 0; r < references_.size(); ++r) {
        const std::vector<llama_token>& reference = references_[r];
        for (std::size_t end = kShortest; end < reference.size(); ++end) {  // text continues at `end`
            std::size_t length = 0;
            const std::size_t most = std::min({end, text.size(), kLongest});
            while (length < most && reference[end - 1 - length] == text[text.size() - 1 - length]) ++length;
            if (length < kShortest) continue;
            // Of equal matches, the nearest one ahead of where copying stopped: revisions keep the order of their
            // draft.
            const bool ahead = last_.known && last_.reference == r && end >= last_.next;
            if (length > best_length || (length == best_length && ahead && !best_ahead)) {
                best = {r, end, true};
                best_length = length;
                best_ahead = ahead;
            }
        }
    }
    return best;
}

std::vector<llama_token> Copying::propose(const std::vector<llama_token>& text, std::size_t most) {
    if (!active()) return {};
    if (rests_ > 0) {
        --rests_;
        return {};
    }
    const Place place = find(text);
    if (!place.known) return {};
    last_ = place;
    const std::vector<llama_token>& reference = references_[place.reference];
    const std::size_t count = std::min({most, length_, reference.size() - place.next});
    const auto first = reference.begin() + static_cast<std::ptrdiff_t>(place.next);
    return {first, first + static_cast<std::ptrdiff_t>(count)};
}

void Copying::accepted(std::size_t proposed, std::size_t accepted, double milliseconds) {
    last_.next += accepted;
    if (plain_ms_ > 0 && milliseconds > 0) saved_ms_ += static_cast<double>(accepted + 1) * plain_ms_ - milliseconds;
    if (accepted == proposed) {
        length_ = std::min(length_ * 2, kMost);
        refusals_ = 0;
    } else {
        length_ = std::max<std::size_t>(accepted + 4, 8);
        length_ = std::min(length_, kMost);
        if (accepted < 3) {
            ++refusals_;
            rests_ = std::min<std::size_t>(std::size_t{1} << std::min<std::size_t>(refusals_, 5), 32);
        } else {
            refusals_ = 0;
        }
    }
    if (plain_ms_ > 0 && saved_ms_ < -kLossLimitMs * plain_ms_) given_up_ = true;
}

void Copying::plain(double milliseconds) {
    plain_ms_ = plain_ms_ > 0 ? 0.8 * plain_ms_ + 0.2 * milliseconds : milliseconds;
}

}  // namespace ltm
