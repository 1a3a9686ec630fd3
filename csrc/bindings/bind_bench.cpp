// Clocks inside the native code, for `ltm-edge bench masks`: a call from Python takes about as long as a mask.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/gil.h"
#include "grammar/grammar.h"
#include "grammar/mask_cache.h"
#include "grammar/matcher.h"
#include "support/error.h"

namespace py = pybind11;

namespace ltm {
namespace {

using namespace grammar;
using Clock = std::chrono::steady_clock;
using TokenArray = py::array_t<std::int32_t, py::array::c_style | py::array::forcecast>;

std::int64_t ns_since(Clock::time_point start) {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count();
}

struct Times {
    std::vector<std::int64_t> mask;
    std::vector<std::int64_t> accept;
};

// One walk along the tokens. With `exact` every mask is asked for with a budget of just the tokens that are left.
void walk(Matcher& matcher, const std::vector<std::uint32_t>& tokens, bool exact, Times& times) {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        const auto left = static_cast<std::uint32_t>(tokens.size() - i);
        const auto start = Clock::now();
        const MaskPtr mask = exact ? matcher.mask(left) : matcher.mask();
        times.mask.push_back(ns_since(start));
        const auto between = Clock::now();
        const bool taken = matcher.accept(tokens[i]);
        times.accept.push_back(ns_since(between));
        if (!taken || !mask->allows(tokens[i])) {
            throw Error(ErrorCode::invalid_argument, "bench: token " + std::to_string(i) + " is not allowed");
        }
    }
}

py::array_t<std::int64_t> table(const std::vector<std::int64_t>& values, std::size_t columns) {
    const auto rows = columns == 0 ? 0 : values.size() / columns;
    return py::array_t<std::int64_t>({static_cast<py::ssize_t>(rows), static_cast<py::ssize_t>(columns)},
                                     values.data());
}

py::dict masks(const std::string& gbnf, const std::shared_ptr<Vocab>& vocab, const TokenArray& array, int cold_rounds,
               int warm_rounds) {
    const std::vector<std::uint32_t> tokens(array.data(), array.data() + array.size());
    Times cold;
    Times warm;
    Times exact;
    std::vector<std::int64_t> first;
    MaskStatistics kept;
    {
        const WithoutGil release;
        std::shared_ptr<MaskCache> cache;
        for (int round = 0; round < cold_rounds; ++round) {
            cache.reset();
            const auto start = Clock::now();
            cache = std::make_shared<MaskCache>(std::make_shared<const Grammar>(gbnf), vocab);
            Matcher matcher(cache);
            const MaskPtr mask = matcher.mask();
            first.push_back(ns_since(start));
            // The first scene ever: a new cache, whose first mask is counted here too.
            auto fresh = std::make_shared<MaskCache>(std::make_shared<const Grammar>(gbnf), vocab);
            Matcher writer(fresh);
            walk(writer, tokens, false, cold);
            cache = fresh;
        }
        kept = cache->statistics();
        for (int round = 0; round < warm_rounds; ++round) {
            Matcher matcher(cache);
            walk(matcher, tokens, false, warm);
            Matcher landing(cache);
            walk(landing, tokens, true, exact);
        }
    }
    py::dict out;
    out["first_mask"] = table(first, 1);
    out["cold_mask"] = table(cold.mask, tokens.size());
    out["cold_accept"] = table(cold.accept, tokens.size());
    out["warm_mask"] = table(warm.mask, tokens.size());
    out["warm_accept"] = table(warm.accept, tokens.size());
    out["exact_mask"] = table(exact.mask, tokens.size());
    out["masks"] = kept.masks;
    out["bytes"] = kept.bytes;
    out["computed"] = kept.computed;
    return out;
}

}  // namespace

void bind_bench(py::module_& m) {
    m.def("bench_masks", &masks, py::arg("gbnf"), py::arg("vocab"), py::arg("tokens"), py::arg("cold_rounds"),
          py::arg("warm_rounds"),
          "Nanoseconds of mask and accept at every token of a document, int64 [rounds, n]; `exact_mask` is asked for "
          "with a budget of just the tokens that are left. Raises ValueError if the grammar doesn't allow the tokens.");
}

}  // namespace ltm
