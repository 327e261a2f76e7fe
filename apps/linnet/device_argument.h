// Where a verb's models work: the CPU, or a GPU.
#pragma once

#include "arguments.h"
#include "core/device.h"

namespace linnet::app {

/// Adds --device, a name for open_device().
void add_device_option(const Verb& verb, std::string& device);

/// The device of that name, ready to work on. Throws UsageError on a name that is none, and Error when there is
/// no such GPU.
Device open_device(const std::string& name);

}  // namespace linnet::app
