// The plainest tar file (ustar), for tests that read some.
#pragma once

#include <cstdio>
#include <fstream>
#include <string>

namespace linnet::test {

class TarWriter {
 public:
  explicit TarWriter(const std::string& path) : file_(path, std::ios::binary) {}
  ~TarWriter() { file_ << std::string(1024, '\0'); }

  void add(const std::string& name, const std::string& contents) {
    std::string header(512, '\0');
    header.replace(0, name.size(), name);
    put(header, 100, "0000644");
    put(header, 108, "0000000");
    put(header, 116, "0000000");
    char size[16];
    std::snprintf(size, sizeof size, "%011zo", contents.size());
    put(header, 124, size);
    put(header, 136, "00000000000");
    header.replace(148, 8, 8, ' ');
    header[156] = '0';
    header.replace(257, 5, "ustar");
    header.replace(263, 2, "00");
    unsigned sum = 0;
    for (const char c : header) sum += static_cast<unsigned char>(c);
    std::snprintf(size, sizeof size, "%06o", sum);
    put(header, 148, size);
    file_ << header << contents << std::string((512 - contents.size() % 512) % 512, '\0');
  }

 private:
  static void put(std::string& header, size_t place, const std::string& text) {
    header.replace(place, text.size(), text);
    header[place + text.size()] = '\0';
  }

  std::ofstream file_;
};

}  // namespace linnet::test
