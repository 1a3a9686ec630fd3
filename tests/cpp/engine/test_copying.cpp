// Proposals from reference texts: where they come from, how long they are, and when copying is given up.
#include <llama.h>

#include <algorithm>
#include <random>
#include <vector>

#include "check.h"
#include "engine/copying.h"

namespace {

using Tokens = std::vector<llama_token>;
using ltm::Copying;

bool stands_in(const Tokens& piece, const Tokens& text) {
    return std::search(text.begin(), text.end(), piece.begin(), piece.end()) != text.end();
}

void needs_a_match() {
    Copying copying({{1, 2, 3, 4, 5, 6}});
    CHECK(copying.active());
    CHECK(copying.propose({}, 8).empty());
    CHECK(copying.propose({2}, 8).empty());     // one token tells too little
    CHECK(copying.propose({9, 3}, 8).empty());  // and so does one that stands alone
    CHECK(copying.propose({2, 3}, 8) == Tokens({4, 5, 6}));
    CHECK(copying.propose({2, 3}, 2) == Tokens({4, 5}));
    CHECK(copying.propose({2, 3}, 0).empty());
    CHECK(copying.propose({5, 6}, 8).empty());  // nothing follows
    CHECK(copying.propose({7, 8}, 8).empty());
}

void nothing_to_copy_from() {
    Copying none({});
    CHECK(!none.active());
    CHECK(none.propose({1, 2, 3}, 8).empty());
    Copying empty({{}, {1}, {1, 2}});
    CHECK(empty.propose({1, 2}, 8).empty());
}

void the_longer_match_wins() {
    Copying copying({{1, 2, 10, 7, 1, 2, 11}, {8, 7, 1, 2, 12}});
    CHECK(copying.propose({7, 1, 2}, 1) == Tokens({11}));
    CHECK(copying.propose({8, 7, 1, 2}, 1) == Tokens({12}));
    Copying fresh({{1, 2, 10, 7, 1, 2, 11}, {8, 7, 1, 2, 12}});
    CHECK(fresh.propose({5, 1, 2}, 1) == Tokens({10}));  // equal matches: the first one's
}

void the_nearest_ahead_wins() {
    // "1 2" comes three times, each followed by something else.
    Copying copying({{1, 2, 20, 3, 4, 1, 2, 21, 5, 6, 1, 2, 22}});
    CHECK(copying.propose({3, 4}, 1) == Tokens({1}));
    copying.accepted(1, 1, 1.0);
    CHECK(copying.propose({9, 1, 2}, 1) == Tokens({21}));  // not the first one, which lies behind
    copying.accepted(1, 1, 1.0);
    CHECK(copying.propose({9, 1, 2}, 1) == Tokens({22}));
    copying.accepted(1, 1, 1.0);
    CHECK(copying.propose({9, 1, 2}, 1) == Tokens({20}));  // none is ahead any more
}

void a_proposal_grows_while_it_is_right() {
    Tokens reference(400);
    for (std::size_t i = 0; i < reference.size(); ++i) reference[i] = static_cast<llama_token>(i);
    Copying copying({reference});
    Tokens text{0, 1};
    std::size_t last = 0;
    for (int step = 0; step < 5; ++step) {
        const Tokens proposal = copying.propose(text, 1000);
        CHECK(proposal.size() >= last && proposal.size() <= 64);
        CHECK(!proposal.empty());
        last = proposal.size();
        copying.accepted(proposal.size(), proposal.size(), 1.0);
        text.insert(text.end(), proposal.begin(), proposal.end());
        CHECK(stands_in(text, reference));
    }
    CHECK(last > 16);
    copying.accepted(last, 1, 1.0);
    CHECK(copying.active());  // one that fails is no reason to stop
}

// Proposals that are never right: they become rare, and where the time they took is known they end.
void gives_up() {
    const Tokens reference{1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
    Copying copying({reference});
    copying.plain(10.0);
    int proposals = 0;
    int steps = 0;
    for (; steps < 10000 && copying.active(); ++steps) {
        const Tokens proposal = copying.propose({1, 2}, 8);
        if (proposal.empty()) {
            copying.plain(10.0);
            continue;
        }
        ++proposals;
        copying.accepted(proposal.size(), 0, 25.0);
    }
    CHECK(!copying.active());
    CHECK(proposals >= 1 && proposals <= 5);  // 15 ms lost each time, 40 allowed
    CHECK(copying.propose({1, 2}, 8).empty());

    // In a batch with others nobody knows what a proposal took; it is rested from all the same.
    Copying shared({reference});
    proposals = 0;
    for (steps = 0; steps < 1000; ++steps) {
        const Tokens proposal = shared.propose({1, 2}, 8);
        if (proposal.empty()) continue;
        ++proposals;
        shared.accepted(proposal.size(), 0, 0.0);
    }
    CHECK(shared.active());
    CHECK(proposals >= 2 && proposals <= 40);
}

// Where proposals pay they go on for ever.
void goes_on_where_it_pays() {
    Copying copying({{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}});
    copying.plain(10.0);
    for (int step = 0; step < 1000; ++step) {
        const Tokens proposal = copying.propose({1, 2}, 8);
        CHECK_EQ(proposal.size(), 8U);
        copying.accepted(8, 8, 25.0);
    }
    CHECK(copying.active());
}

// Over random texts: what is proposed stands in a reference behind at least the last two tokens.
void only_from_references() {
    std::mt19937 random(11);
    const auto below = [&random](std::size_t n) { return static_cast<std::size_t>(random() % n); };
    int proposed = 0;
    for (int round = 0; round < 3000; ++round) {
        std::vector<Tokens> references(1 + below(3));
        for (Tokens& reference : references) {
            reference.resize(below(40));
            for (llama_token& token : reference) token = static_cast<llama_token>(below(4));
        }
        Copying copying(references);
        Tokens text;
        for (int step = 0; step < 20; ++step) {
            const std::size_t most = below(12);
            const Tokens proposal = copying.propose(text, most);
            CHECK(proposal.size() <= most);
            if (!proposal.empty()) {
                ++proposed;
                CHECK(text.size() >= 2);
                Tokens with(text.end() - 2, text.end());
                with.insert(with.end(), proposal.begin(), proposal.end());
                CHECK(std::any_of(references.begin(), references.end(),
                                  [&with](const Tokens& reference) { return stands_in(with, reference); }));
                const std::size_t right = below(proposal.size() + 1);
                copying.accepted(proposal.size(), right, below(2) == 0 ? 0.0 : 1.0);
                text.insert(text.end(), proposal.begin(), proposal.begin() + static_cast<std::ptrdiff_t>(right));
            }
            text.push_back(static_cast<llama_token>(below(4)));
        }
    }
    CHECK(proposed > 1000);
}

}  // namespace

int main() {
    needs_a_match();
    nothing_to_copy_from();
    the_longer_match_wins();
    the_nearest_ahead_wins();
    a_proposal_grows_while_it_is_right();
    gives_up();
    goes_on_where_it_pays();
    only_from_references();
    return check_report();
}
