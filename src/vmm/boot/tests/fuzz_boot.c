/* Any bytes as a kernel: an error or a loaded image, never more. The first byte
 * chooses how much of the rest is an initrd. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "vmm/boot/loader.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct memory memory = { .fd = -1 };
        if (memory.fd < 0 && memory_init(&memory, 16u << 20, NULL, NULL) < 0)
                abort();
        if (size < 2)
                return 0;
        size_t initrd = (size - 1) * data[0] / 256;
        const struct boot_image image = { { data + 1, size - 1 - initrd },
                                          { data + size - initrd, initrd },
                                          "console=ttyS0" };
        struct boot_entry entry;
        struct err err = { 0 };
        if (image.kernel.size && boot_load_image(&memory, &image, &entry, &err) < 0 && !err.code)
                abort(); /* a failure tells its story */
        return 0;
}
