#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>

#include "bindings/bindings.h"
#include "bindings/gil.h"
#include "grammar/grammar.h"
#include "grammar/mask_cache.h"
#include "grammar/matcher.h"
#include "grammar/vocab.h"
#include "support/error.h"

namespace py = pybind11;

namespace ltm {
namespace {

using namespace grammar;
using Words = py::array_t<std::uint32_t, py::array::c_style>;
using TokenArray = py::array_t<std::int32_t, py::array::c_style | py::array::forcecast>;

std::vector<std::uint32_t> from_tokens(const TokenArray& tokens) {
    if (tokens.ndim() != 1) throw Error(ErrorCode::invalid_argument, "tokens: expected a one-dimensional int32 array");
    // Negative numbers become large ones, which no vocabulary has.
    return {tokens.data(), tokens.data() + tokens.size()};
}

TokenArray to_tokens(const std::vector<std::uint32_t>& tokens) {
    TokenArray array(static_cast<py::ssize_t>(tokens.size()));
    std::copy(tokens.begin(), tokens.end(), array.mutable_data());
    return array;
}

// A read-only view of a mask's words; the array keeps the mask alive.
Words view(const MaskPtr& mask) {
    auto* const owner = new MaskPtr(mask);
    const py::capsule keep(owner, [](void* p) { delete static_cast<MaskPtr*>(p); });
    Words words(static_cast<py::ssize_t>(mask->words.size()), mask->words.data(), keep);
    words.attr("flags").attr("writeable") = false;
    return words;
}

Vocab make_vocab(const py::sequence& pieces,
                 const py::array_t<std::uint8_t, py::array::c_style | py::array::forcecast>& kinds) {
    std::vector<py::bytes> held;
    std::vector<std::string_view> views;
    held.reserve(pieces.size());
    views.reserve(pieces.size());
    for (const py::handle piece : pieces) {
        held.push_back(py::reinterpret_borrow<py::bytes>(piece));
        views.push_back(held.back());
    }
    std::vector<TokenKind> of;
    of.reserve(static_cast<std::size_t>(kinds.size()));
    for (py::ssize_t i = 0; i < kinds.size(); ++i) {
        if (kinds.at(i) > 2) throw Error(ErrorCode::invalid_argument, "vocabulary: a token kind is 0, 1 or 2");
        of.push_back(static_cast<TokenKind>(kinds.at(i)));
    }
    const WithoutGil release;
    return {views, of};
}

Tokenize wrap(const py::function& tokenize) {
    // Called from forced_tokens, which runs with the GIL held.
    return [tokenize](std::string_view text) {
        const TokenArray tokens = tokenize(py::bytes(text.data(), text.size()));
        return from_tokens(tokens);
    };
}

float* logits_of(py::array_t<float, py::array::c_style>& logits) {
    if (logits.ndim() != 1)
        throw Error(ErrorCode::invalid_argument, "logits: expected a one-dimensional float32 array");
    return logits.mutable_data();
}

}  // namespace

void bind_grammar(py::module_& m) {
    py::class_<Grammar, std::shared_ptr<Grammar>>(m, "Grammar", "GBNF text, read, checked and compiled. Immutable.")
        .def(py::init([](std::string text, std::string root) {
                 const WithoutGil release;
                 return std::make_shared<Grammar>(std::move(text), std::move(root));
             }),
             py::arg("text"), py::arg("root") = "root")
        .def_property_readonly("text", &Grammar::text)
        .def_property_readonly("root", &Grammar::root)
        .def_property_readonly("is_regular", &Grammar::is_regular)
        .def_property_readonly("unused_rules", [](const Grammar& g) { return g.program().unused_rules; })
        .def("accepts",
             [](const Grammar& g, const py::bytes& bytes) {
                 const std::string_view text = bytes;
                 const WithoutGil release;
                 return g.accepts(text);
             })
        .def("valid_prefix",
             [](const Grammar& g, const py::bytes& bytes) {
                 const std::string_view text = bytes;
                 const WithoutGil release;
                 return g.valid_prefix(text);
             })
        .def(
            "sample_bytes",
            [](const Grammar& g, std::uint64_t seed, std::size_t length) {
                return py::bytes(g.sample_bytes(seed, length));
            },
            py::arg("seed"), py::arg("length") = 200)
        .def("shortest", [](const Grammar& g) { return py::bytes(g.shortest()); });

    py::class_<Vocab, std::shared_ptr<Vocab>>(m, "Vocab", "The bytes that every token writes, as a trie. Immutable.")
        .def(py::init([](const py::sequence& pieces,
                         const py::array_t<std::uint8_t, py::array::c_style | py::array::forcecast>& kinds) {
                 return std::make_shared<Vocab>(make_vocab(pieces, kinds));
             }),
             py::arg("pieces"), py::arg("kinds"))
        .def_static("deserialise",
                    [](const py::bytes& blob) {
                        const std::string_view bytes = blob;
                        const WithoutGil release;
                        return std::make_shared<Vocab>(Vocab::deserialise(bytes));
                    })
        .def("serialise", [](const Vocab& v) { return py::bytes(v.serialise()); })
        .def("__len__", &Vocab::size)
        .def_property_readonly("nodes", &Vocab::node_count)
        .def_property_readonly("nbytes", &Vocab::bytes)
        .def_property_readonly("ends", [](const Vocab& v) { return to_tokens(v.ends()); })
        .def("kind", [](const Vocab& v, std::uint32_t token) { return static_cast<int>(v.kind(token)); })
        .def("piece", [](const Vocab& v, std::uint32_t token) {
            if (token >= v.size()) throw py::index_error("token is not in the vocabulary");
            return py::bytes(v.piece(token).data(), v.piece(token).size());
        });

    py::class_<MaskCache, std::shared_ptr<MaskCache>>(m, "MaskCache",
                                                      "A grammar over a vocabulary, with the masks computed so far.")
        .def(py::init([](std::shared_ptr<Grammar> g, std::shared_ptr<Vocab> v) {
                 const WithoutGil release;
                 return std::make_shared<MaskCache>(std::move(g), std::move(v));
             }),
             py::arg("grammar"), py::arg("vocab"))
        .def(
            "prepare",
            [](MaskCache& c, const py::bytes& bytes, double milliseconds) {
                const std::string_view text = bytes;
                const WithoutGil release;
                return c.prepare(c.start(), text, milliseconds);
            },
            py::arg("text"), py::arg("milliseconds"))
        .def_property_readonly("statistics", [](const MaskCache& c) {
            const MaskStatistics s = c.statistics();
            py::dict d;
            d["masks"] = s.masks;
            d["entries"] = s.entries;
            d["bytes"] = s.bytes;
            d["computed"] = s.computed;
            d["shapes"] = s.shapes;
            d["transitions"] = s.transitions;
            return d;
        });

    py::class_<Matcher>(m, "Matcher", "A grammar's state along one decode.")
        .def(py::init<std::shared_ptr<MaskCache>>(), py::arg("cache"))
        .def("clone", [](const Matcher& self) { return Matcher(self); })
        .def(
            "mask",
            [](const Matcher& self, std::optional<std::uint32_t> budget) {
                MaskPtr mask;
                {
                    const WithoutGil release;
                    mask = budget ? self.mask(*budget) : self.mask();
                }
                return view(mask);
            },
            py::arg("budget") = py::none())
        .def(
            "apply",
            [](const Matcher& self, py::array_t<float, py::array::c_style> logits,
               std::optional<std::uint32_t> budget) {
                float* const data = logits_of(logits);
                const auto n = static_cast<std::size_t>(logits.size());
                const WithoutGil release;
                const MaskPtr mask = budget ? self.mask(*budget) : self.mask();
                mask->apply(data, n);
                return mask->count;
            },
            py::arg("logits").noconvert(), py::arg("budget") = py::none())
        .def(
            "allowed_count",
            [](const Matcher& self, std::optional<std::uint32_t> budget) {
                const WithoutGil release;
                return (budget ? self.mask(*budget) : self.mask())->count;
            },
            py::arg("budget") = py::none())
        .def("allows", &Matcher::allows, py::arg("token"))
        .def("accept", &Matcher::accept, py::arg("token"))
        .def("rollback", &Matcher::rollback, py::arg("n"))
        .def("reset", &Matcher::reset)
        .def(
            "validate",
            [](const Matcher& self, const TokenArray& tokens) {
                const std::vector<std::uint32_t> numbers = from_tokens(tokens);
                const WithoutGil release;
                return self.validate(numbers);
            },
            py::arg("tokens"))
        .def("forced_bytes", [](const Matcher& self) { return py::bytes(self.forced_bytes()); })
        .def(
            "forced_tokens",
            [](const Matcher& self, const py::function& tokenize, std::size_t may_replace,
               std::optional<std::uint32_t> budget) {
                const ForcedTokens forced = self.forced_tokens(wrap(tokenize), may_replace, budget);
                return py::make_tuple(forced.replace, to_tokens(forced.tokens));
            },
            py::arg("tokenize"), py::arg("may_replace") = 0, py::arg("budget") = py::none())
        .def_property_readonly("cost_to_end",
                               [](const Matcher& self) {
                                   const WithoutGil release;
                                   return self.cost_to_end();
                               })
        .def_property_readonly("is_complete", &Matcher::is_complete)
        .def_property_readonly("is_closed", &Matcher::is_closed)
        .def_property_readonly("finished", &Matcher::finished)
        .def_property_readonly("tokens", [](const Matcher& self) { return to_tokens(self.tokens()); });
}

}  // namespace ltm
