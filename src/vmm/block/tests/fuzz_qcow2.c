/* A hostile qcow2 image, and a guest that uses it. The input: how many requests, requests of
 * four bytes (kind, two of the sector, sectors), the image. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/str.h"
#include "vmm/block/disk.h"

#define REQUESTS_MAX 16
#define FILE_BYTES   (8u << 20) /* that it may grow to */
#define SECTORS_MAX  255u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* In two pieces, not cut at sectors. */
static void request(struct disk *disk, const uint8_t *data)
{
        static uint8_t bytes[SECTORS_MAX * DISK_SECTOR];
        uint64_t sectors = disk_size(disk) / DISK_SECTOR;
        if (!sectors)
                return;
        /* Near the end as well as near the beginning. */
        uint64_t sector = ((uint64_t)data[1] << 8 | data[2]) % sectors;
        if (data[0] & 0x80)
                sector = sectors - 1 - sector;
        uint64_t length = data[3] < sectors - sector ? data[3] : sectors - sector;
        size_t size = (size_t)length * DISK_SECTOR, first = size / 3;
        const struct iovec v[2] = { { bytes, first }, { bytes + first, size - first } };
        int r = 0;
        memset(bytes, data[3], size);
        switch (data[0] & 7) {
        case 0:
        case 1:
                r = disk_read(disk, v, 2, sector * DISK_SECTOR);
                break;
        case 2:
        case 3:
                r = disk_write(disk, v, 2, sector * DISK_SECTOR);
                break;
        case 4:
                r = disk_flush(disk);
                break;
        case 5:
                r = disk_discard(disk, sector * DISK_SECTOR, size);
                break;
        default:
                r = disk_write_zeroes(disk, sector * DISK_SECTOR, size, data[0] & 1);
        }
        if (r > 0)
                abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        char path[32];
        struct disk *disk;
        struct err err = { 0 };
        size_t requests = size ? data[0] % (REQUESTS_MAX + 1) : 0;
        if (size < 1 + requests * 4 || size > FILE_BYTES)
                return 0;
        const struct rlimit limit = { FILE_BYTES, FILE_BYTES };
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &limit);
        int fd = memfd_create("image", MFD_CLOEXEC);
        size_t image = size - 1 - requests * 4;
        if (fd < 0 || write(fd, data + 1 + requests * 4, image) != (ssize_t)image)
                abort();
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        const struct disk_options options = { .path = path, .format = DISK_QCOW2 };
        if (disk_open(&options, &disk, &err) == 0) {
                for (size_t i = 0; i < requests; i++)
                        request(disk, data + 1 + i * 4);
                disk_close(disk);
        } else if (!err.text[0]) {
                abort();
        }
        close(fd);
        return 0;
}
