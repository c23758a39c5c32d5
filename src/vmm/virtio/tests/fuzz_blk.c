#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/virtio/blk.c"

#include "vmm/virtio/tests/fuzz_device.h"

#define DISK_BYTES 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct disk *disk(void)
{
        char path[32];
        struct err err = { 0 };
        struct disk *disk;
        int fd = memfd_create("disk", MFD_CLOEXEC);
        if (fd < 0 || ftruncate(fd, DISK_BYTES) < 0)
                abort();
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        if (disk_open(&(struct disk_options){ .path = path, .format = DISK_RAW }, &disk, &err) < 0)
                abort();
        close(fd);
        return disk;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct blk blk;
        static struct blk_queue queue = { .blk = &blk };
        if (!blk.disk) {
                blk.disk = disk();
                blk.sectors = DISK_BYTES / SECTOR;
                virtio_init(&blk.virtio, fuzz_machine_get(), VIRTIO_BLK, "virtio-blk", &ops,
                            features_of(blk.disk, 1));
                virtio_queue(&blk.virtio, QUEUE_SIZE);
                pthread_mutex_init(&blk.throttle_lock, NULL);
        }
        fuzz_device_begin(&blk.virtio, data, size);
        work(&queue);
        return 0;
}
