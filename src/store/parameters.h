// A model's parameters and the tensors of a file, whichever model it is: that they fit, reading, what is
// written, and what tells weights apart.
#pragma once

#include <string>
#include <vector>

#include "nn/parameter.h"
#include "store/weights.h"

namespace linnet {

/// Checks without reading a number that the weights are those of a list's parameters. Throws Error naming file
/// and tensor when one is missing, left over, or of another shape or type.
void check_parameters(const nn::ParameterList& parameters, const Weights& weights);
/// Gives every learned parameter of a list the tensor of its name; checks first.
void read_parameters(const nn::ParameterList& parameters, const Weights& weights);
/// The parameters' values by name, in dtype, or in 8 bits with their scales where they are so. Throws Error
/// when one has none. The parameters must outlive what is returned.
std::vector<TensorToWrite> values_of(const nn::ParameterList& parameters, DType dtype);

/// Sixteen hexadecimal digits that say which weights a model has: a function of the tensors' names,
/// types and bytes, not of metadata or of the order in the file. Tells files apart; no defence against forgery.
std::string fingerprint(const nn::ParameterList& parameters);
/// The same of a few blocks of every tensor, the first and the last among them, and of all scales: of weights
/// that are too many to be read for it.
std::string quick_fingerprint(const nn::ParameterList& parameters);
/// The same of one tensor's values.
std::string fingerprint(const Tensor& tensor);

}  // namespace linnet
