/* Both rings of virtio-fs: chains of descriptors from the fuzzer, whose requests and answers may
 * lie one over the other, on a small tree. */
#include "vmm/fs/device.c"

#include "vmm/fs/tests/fuzz_tree.h"
#include "vmm/virtio/tests/fuzz_device.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct fs_device fs;
        const struct fs_options options = { .root = fuzz_root,
                                            .read_only = size & 2,
                                            .inodes_max = 6 };
        fuzz_tree_once();
        if (!fs.virtio.queues_length) {
                virtio_init(&fs.virtio, fuzz_machine_get(), VIRTIO_FS, "virtio-fs", &ops, 0);
                for (unsigned i = 0; i < QUEUES; i++) {
                        fs.queues[i] = (struct fs_queue){ .fs = &fs, .index = i };
                        virtio_queue(&fs.virtio, QUEUE_SIZE);
                }
        }
        fuzz_tree_make();
        must(fs_server_create(&options, &fs.server, NULL) == 0);
        fuzz_device_begin(&fs.virtio, data, size);
        for (unsigned i = 0; i < QUEUES; i++)
                work(&fs.queues[i]);
        fs_server_destroy(fs.server);
        const uint8_t *ram = memory_at(&fuzz_machine.memory, gpa(0), 1u << 20);
        /* The fuzzer learns of the secret from our comparing, and puts it into inputs. */
        must(memmem(data, size, fuzz_secret, strlen(fuzz_secret)) ||
             !memmem(ram, 1u << 20, fuzz_secret, strlen(fuzz_secret)));
        must(fuzz_secret_unchanged());
        return 0;
}
