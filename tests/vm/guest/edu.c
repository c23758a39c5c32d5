/* Has the edu device copy from and to a page of this program at its physical address, which a
 * kernel with an IOMMU has not allowed it: says whether that page was reached. */
#include <fcntl.h>
#include <glob.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ID         0x11e81234u
#define BUFFER     0x40000u
#define SOURCE     (0x80 / 8)
#define TARGET     (0x88 / 8)
#define COUNT      (0x90 / 8)
#define COMMAND    (0x98 / 8)
#define TO_DEVICE  1u
#define TO_MEMORY  3u
#define PAGE_BYTES 4096u

static void fail(const char *what)
{
        perror(what);
        exit(1);
}

static uint32_t id_of(const char *directory)
{
        char path[256];
        uint32_t id = 0;
        snprintf(path, sizeof(path), "%s/config", directory);
        int fd = open(path, O_RDONLY);
        if (fd < 0 || read(fd, &id, sizeof(id)) != sizeof(id))
                fail(path);
        close(fd);
        return id;
}

static volatile uint64_t *registers(void)
{
        glob_t found;
        if (glob("/sys/bus/pci/devices/*", 0, NULL, &found) != 0)
                fail("no PCI devices");
        for (size_t i = 0; i < found.gl_pathc; i++) {
                char path[256];
                if (id_of(found.gl_pathv[i]) != ID)
                        continue;
                snprintf(path, sizeof(path), "%s/resource0", found.gl_pathv[i]);
                int fd = open(path, O_RDWR);
                void *at = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
                if (at == MAP_FAILED)
                        fail(path);
                return at;
        }
        fail("no edu device");
        return NULL;
}

static uint64_t physical(const void *page)
{
        uint64_t entry = 0;
        int fd = open("/proc/self/pagemap", O_RDONLY);
        if (pread(fd, &entry, 8, (off_t)((uintptr_t)page / PAGE_BYTES * 8)) != 8 || !(entry >> 63))
                fail("pagemap");
        close(fd);
        return (entry & ((1ull << 55) - 1)) * PAGE_BYTES;
}

int main(void)
{
        volatile uint64_t *edu = registers();
        uint8_t *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0);
        memset(page, 0x11, PAGE_BYTES);
        memset(page, 0x77, 64);
        uint64_t at = physical(page);
        edu[COUNT] = 64;
        edu[SOURCE] = at;
        edu[TARGET] = BUFFER;
        *(volatile uint32_t *)(edu + COMMAND) = TO_DEVICE;
        edu[SOURCE] = BUFFER;
        edu[TARGET] = at + 2048;
        *(volatile uint32_t *)(edu + COMMAND) = TO_MEMORY;
        if (memcmp(page, page + 2048, 64) == 0)
                printf("memory was read and written\n");
        else if (page[2048] == 0x11)
                printf("memory was not reached\n");
        else
                printf("memory was written only\n");
        return 0;
}
