#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <array>
#include <filesystem>
#include <optional>
#include <string>

#include "bindings/bindings.h"
#include "bindings/gil.h"
#include "memory/kernels.h"
#include "memory/resonance.h"
#include "memory/vector_index.h"
#include "support/error.h"

namespace py = pybind11;

namespace ltm {
namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;
template <typename T>
using OptionalArray = std::optional<Array<T>>;

using memory::IndexOrigin;
using memory::VectorIndex;

template <typename T>
std::span<const T> view(const Array<T>& array) {
    return {array.data(), static_cast<std::size_t>(array.size())};
}

template <typename T>
const T* data(const OptionalArray<T>& array) {
    return array ? array->data() : nullptr;
}

void expect(bool holds, const char* what) {
    if (!holds) throw Error(ErrorCode::invalid_argument, what);
}

bool is_block(const Array<float>& rows, std::size_t n, std::size_t dim) {
    return rows.ndim() == 2 && static_cast<std::size_t>(rows.shape(0)) == n &&
           static_cast<std::size_t>(rows.shape(1)) == dim;
}

void add(VectorIndex& self, const Array<std::int64_t>& ids, const Array<float>& vectors, std::size_t threads) {
    expect(ids.ndim() == 1 && is_block(vectors, static_cast<std::size_t>(ids.size()), self.dim()),
           "vector index: ids [n] and vectors [n, dim] expected");
    const WithoutGil release;
    self.add(view(ids), vectors.data(), threads);
}

py::tuple search(const VectorIndex& self, const Array<float>& queries, std::size_t k,
                 const OptionalArray<std::int64_t>& allowed, bool exact, std::size_t effort) {
    const std::size_t n = queries.ndim() == 2 ? static_cast<std::size_t>(queries.shape(0)) : 0;
    expect(is_block(queries, n, self.dim()), "vector index: queries [q, dim] expected");
    py::array_t<std::int64_t> ids({n, k});
    py::array_t<float> scores({n, k});
    VectorIndex::Search how{k, effort, exact, std::nullopt};
    if (allowed) how.allowed = view(*allowed);
    const float* const from = queries.data();
    std::int64_t* const to_ids = ids.mutable_data();
    float* const to_scores = scores.mutable_data();
    {
        const WithoutGil release;
        self.search(from, n, how, to_ids, to_scores);
    }
    return py::make_tuple(ids, scores);
}

struct Vectors {
    const OptionalArray<float>& query;
    const OptionalArray<float>& rows;
};

memory::Pair pair_of(const Vectors& vectors, std::size_t n, std::size_t& dim) {
    if (!vectors.query || !vectors.rows) return {};
    dim = static_cast<std::size_t>(vectors.query->size());
    expect(vectors.query->ndim() == 1 && is_block(*vectors.rows, n, dim), "resonance: vectors of another shape");
    return {vectors.query->data(), vectors.rows->data()};
}

py::tuple resonate(const Array<double>& age, const Array<float>& strength,
                   const std::array<double, memory::kParts>& weights, double half_life,
                   const OptionalArray<float>& meaning, const OptionalArray<float>& meanings,
                   const OptionalArray<float>& tension, const OptionalArray<float>& tensions,
                   const OptionalArray<float>& will, const OptionalArray<float>& centres,
                   const OptionalArray<float>& words, const OptionalArray<std::uint64_t>& wanted,
                   const OptionalArray<std::uint64_t>& archetypes) {
    memory::ResonanceInput input;
    const auto n = static_cast<std::size_t>(age.size());
    input.n = n;
    std::array<std::size_t, 3> dims{};
    input.meaning = pair_of({meaning, meanings}, n, dims[0]);
    input.tension = pair_of({tension, tensions}, n, dims[1]);
    input.centre = pair_of({will, centres}, n, dims[2]);
    for (const std::size_t dim : dims) {
        expect(dim == 0 || input.dim == 0 || dim == input.dim, "resonance: vectors of different dimensions");
        if (dim != 0) input.dim = dim;
    }
    expect(age.ndim() == 1 && strength.ndim() == 1 && static_cast<std::size_t>(strength.size()) == n &&
               (!words || (words->ndim() == 1 && static_cast<std::size_t>(words->size()) == n)),
           "resonance: age, strength and words [n] expected");
    input.words = data(words);
    if (wanted && archetypes) {
        input.width = static_cast<std::size_t>(wanted->size());
        expect(wanted->ndim() == 1 && archetypes->ndim() == 2 && static_cast<std::size_t>(archetypes->shape(0)) == n &&
                   static_cast<std::size_t>(archetypes->shape(1)) == input.width,
               "resonance: archetypes [n, w] against [w] expected");
        input.wanted = wanted->data();
        input.archetypes = archetypes->data();
    }
    input.age = age.data();
    input.strength = strength.data();
    input.half_life = half_life;
    input.weights = weights;
    py::array_t<float> scores(static_cast<py::ssize_t>(n));
    py::array_t<float> parts({n, memory::kParts});
    float* const to_scores = scores.mutable_data();
    float* const to_parts = parts.mutable_data();
    {
        const WithoutGil release;
        memory::resonate(input, to_scores, to_parts);
    }
    return py::make_tuple(scores, parts);
}

py::array_t<std::int64_t> diversify(const Array<float>& scores, const Array<float>& vectors, std::size_t k,
                                    double lam) {
    const auto n = static_cast<std::size_t>(scores.size());
    expect(scores.ndim() == 1 && vectors.ndim() == 2 && static_cast<std::size_t>(vectors.shape(0)) == n,
           "diversify: scores [n] and vectors [n, dim] expected");
    std::vector<std::int64_t> order;
    {
        const WithoutGil release;
        order = memory::diversify(scores.data(), vectors.data(), n, static_cast<std::size_t>(vectors.shape(1)), k, lam);
    }
    return py::array_t<std::int64_t>(static_cast<py::ssize_t>(order.size()), order.data());
}

}  // namespace

void bind_memory(py::module_& m) {
    using Release = py::call_guard<WithoutGil>;
    m.attr("INDEX_EFFORT") = VectorIndex::kEffort;
    m.def("vector_kernels", &memory::kernel_name, "Instruction set of the vector kernels that run here.");
    m.def("resonate", &resonate, py::arg("age"), py::arg("strength"), py::arg("weights"), py::arg("half_life"),
          py::arg("meaning"), py::arg("meanings"), py::arg("tension"), py::arg("tensions"), py::arg("will"),
          py::arg("centres"), py::arg("words"), py::arg("wanted"), py::arg("archetypes"),
          "Scores float32 [n] and parts float32 [n, 7] of candidates.");
    m.def("diversify", &diversify, py::arg("scores"), py::arg("vectors"), py::arg("k"), py::arg("lam"),
          "Rows in the order of maximal marginal relevance, int64 [min(k, n)].");
    py::class_<VectorIndex>(m, "VectorIndex")
        .def(py::init<std::size_t, std::size_t>(), py::arg("dim"), py::arg("exact_below"))
        .def("add", &add, py::arg("ids"), py::arg("vectors"), py::arg("threads"))
        .def(
            "remove",
            [](VectorIndex& self, const Array<std::int64_t>& ids) {
                const WithoutGil release;
                return self.remove(view(ids));
            },
            py::arg("ids"))
        .def("search", &search, py::arg("queries"), py::arg("k"), py::arg("allowed"), py::arg("exact"),
             py::arg("effort"))
        .def("compact", &VectorIndex::compact, py::arg("threads"), Release())
        .def(
            "save",
            [](VectorIndex& self, const std::filesystem::path& path, std::uint64_t generation, std::string embedder) {
                const WithoutGil release;
                self.save(path, IndexOrigin{generation, std::move(embedder)});
            },
            py::arg("path"), py::arg("generation"), py::arg("embedder"))
        .def_static(
            "load",
            [](const std::filesystem::path& path, std::size_t dim, std::uint64_t generation, std::string embedder,
               std::size_t exact_below) {
                const WithoutGil release;
                return VectorIndex::load(path, dim, IndexOrigin{generation, std::move(embedder)}, exact_below);
            },
            py::arg("path"), py::arg("dim"), py::arg("generation"), py::arg("embedder"), py::arg("exact_below"))
        .def("__len__", &VectorIndex::size, Release())
        .def("__contains__", &VectorIndex::contains, py::arg("id"), Release())
        .def("stats", [](const VectorIndex& self) {
            memory::IndexStats found{};
            {
                const WithoutGil release;
                found = self.stats();
            }
            return py::make_tuple(found.count, found.deleted, found.bytes, found.linked);
        });
}

}  // namespace ltm
