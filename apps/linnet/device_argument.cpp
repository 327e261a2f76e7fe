#include "device_argument.h"

#include "core/gpu.h"
#include "core/processes.h"

namespace linnet::app {

void add_device_option(const Verb& verb, std::string& device) {
  verb.add_option("--device", device, "Where to work: cpu, cuda (an Nvidia GPU), or cuda:1 and so on")
      .capture_default_str()
      .type_name("NAME");
}

Device open_device(const std::string& name) {
  const Device device = device_from_name(own_device(name));
  if (device.is_gpu()) open_gpu(device);
  return device;
}

}  // namespace linnet::app
