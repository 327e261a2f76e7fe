#include "store/inception_file.h"

#include "store/parameters.h"

namespace linnet {

LoadedInception load_inception(const std::filesystem::path& path, const Device& device) {
  const Weights file = Weights::open(path);
  Weights weights = file.empty_like();
  for (const Weights::Item& item : file.items()) {
    // What only counts training steps, and the second head that only training had.
    const bool of_training = item.name.ends_with(".num_batches_tracked") || item.name.starts_with("AuxLogits.");
    if (!of_training) weights.add(item);
  }
  LoadedInception result{std::make_unique<Inception>(), {}, device};
  const nn::ParameterList parameters = nn::all_parameters(*result.model);
  read_parameters(parameters, weights);
  result.fingerprint = fingerprint(parameters);
  nn::freeze(*result.model);
  nn::move_to(*result.model, device);
  return result;
}

}  // namespace linnet
