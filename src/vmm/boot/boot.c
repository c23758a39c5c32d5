#include "vmm/boot/boot.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "vmm/boot/loader.h"
#include "vmm/layout.h"

static int map_file(const char *path, const char *what, struct boot_file *ret, struct err *err)
{
        auto_fd fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
        if (fd < 0)
                return err_set(err, errno, "%s '%s'", what, path);
        struct stat st;
        if (fstat(fd, &st) < 0)
                return err_set(err, errno, "%s '%s'", what, path);
        if (!S_ISREG(st.st_mode))
                return err_plain(err, EINVAL, "%s '%s' is not a file", what, path);
        if (st.st_size == 0 || (uint64_t)st.st_size > BOOT_FILE_MAX)
                return err_plain(err, EINVAL, "%s '%s' has %lld bytes: 1 to %llu are possible",
                                 what, path, (long long)st.st_size, BOOT_FILE_MAX);
        void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED)
                return err_set(err, errno, "%s '%s'", what, path);
        *ret = (struct boot_file){ map, (size_t)st.st_size };
        return 0;
}

static void unmap_file(struct boot_file *file)
{
        if (file->bytes)
                munmap((void *)(uintptr_t)file->bytes, file->size);
}

static int load_linux(const struct memory *memory, const struct boot_image *image,
                      struct boot_entry *ret, struct err *err)
{
        int r = boot_check_linux(memory, image, err);
        if (r == 0 && !image->packed)
                r = boot_pvh_packed(memory, image, ret, err);
        return r == 0 ? boot_linux(memory, image, ret, err) : r < 0 ? r : 0;
}

int boot_load_image(const struct memory *memory, const struct boot_image *image,
                    struct boot_entry *ret, struct err *err)
{
        if (strlen(image->cmdline) >= LAYOUT_CMDLINE_MAX)
                return err_plain(err, E2BIG, "command line of %zu bytes: at most %llu are possible",
                                 strlen(image->cmdline), LAYOUT_CMDLINE_MAX - 1);
        if (boot_is_linux(&image->kernel))
                return load_linux(memory, image, ret, err);
        if (boot_is_multiboot(&image->kernel))
                return boot_multiboot(memory, image, ret, err);
        if (boot_is_elf(&image->kernel))
                return boot_pvh(memory, image, ret, err);
        return err_plain(err, ENOEXEC,
                         "not a kernel: neither a bzImage, nor ELF with a PVH note, nor multiboot");
}

int boot_load(const struct memory *memory, const struct boot_config *config, struct boot_entry *ret,
              struct err *err)
{
        struct boot_image image = { .cmdline = config->cmdline ? config->cmdline : "",
                                    .packed = config->packed };
        int r = map_file(config->kernel, "kernel", &image.kernel, err);
        if (r == 0 && config->initrd)
                r = map_file(config->initrd, "initrd", &image.initrd, err);
        if (r == 0) {
                r = boot_load_image(memory, &image, ret, err);
                if (r < 0)
                        err_wrap(err, "kernel '%s'", config->kernel);
        }
        unmap_file(&image.kernel);
        unmap_file(&image.initrd);
        return r;
}

/* ---- what the loaders share ---- */

int boot_place_cmdline(const struct memory *memory, const struct boot_image *image)
{
        return memory_write(memory, gpa(LAYOUT_CMDLINE), image->cmdline,
                            strlen(image->cmdline) + 1);
}

int boot_place_initrd(const struct memory *memory, const struct boot_image *image,
                      uint64_t kernel_end, uint64_t limit, uint64_t *ret_address, struct err *err)
{
        *ret_address = 0;
        if (!image->initrd.size)
                return 0;
        uint64_t low_end = memory->slots[0].size_bytes;
        if (limit > low_end)
                limit = low_end;
        if (image->initrd.size > limit)
                return err_plain(err, ENOMEM, "initrd of %zu bytes does not fit below %llu MiB",
                                 image->initrd.size, (unsigned long long)(limit >> 20));
        uint64_t at = (limit - image->initrd.size) & ~(MEMORY_PAGE_SIZE - 1);
        if (at < kernel_end)
                return err_plain(err, ENOMEM,
                                 "initrd of %zu bytes does not fit beside the kernel into %llu MiB"
                                 " of memory",
                                 image->initrd.size,
                                 (unsigned long long)(memory->size_bytes >> 20));
        memory_load(memory, gpa(at), image->initrd.bytes, image->initrd.size, image->initrd.size);
        *ret_address = at;
        return 0;
}

unsigned boot_map(const struct memory *memory, struct boot_range ranges[BOOT_RANGES])
{
        unsigned n = 0;
        ranges[n++] = (struct boot_range){ 0, LAYOUT_LOW_END, BOOT_USABLE };
        ranges[n++] = (struct boot_range){ LAYOUT_LOW_END, LAYOUT_KERNEL - LAYOUT_LOW_END,
                                           BOOT_RESERVED };
        ranges[n++] = (struct boot_range){ LAYOUT_KERNEL,
                                           memory->slots[0].size_bytes - LAYOUT_KERNEL,
                                           BOOT_USABLE };
        ranges[n++] = (struct boot_range){ LAYOUT_ECAM, LAYOUT_ECAM_SIZE, BOOT_RESERVED };
        for (unsigned i = 1; i < memory->length; i++)
                ranges[n++] = (struct boot_range){ memory->slots[i].base.value,
                                                   memory->slots[i].size_bytes, BOOT_USABLE };
        return n;
}

/* ---- the first vCPU ---- */

#define CR0_PE   0x1ull
#define CR0_ET   0x10ull
#define CR0_NE   0x20ull
#define CR0_PG   0x80000000ull
#define CR4_PAE  0x20ull
#define EFER_LME 0x100ull
#define EFER_LMA 0x400ull
#define CODE64   0xa09bu /* present, code, readable, accessed; long, 4 KiB units */
#define CODE32   0xc09bu
#define DATA32   0xc093u
#define TSS_BUSY 0x8bu
#define SEL_CODE 0x10
#define SEL_DATA 0x18

static struct cpu_segment flat(uint16_t selector, uint32_t attributes)
{
        return (struct cpu_segment){ 0, 0xffffffff, attributes, selector, { 0 } };
}

static uint64_t descriptor(uint32_t attributes)
{
        return 0x000f00000000ffffull | (uint64_t)(attributes & 0xff) << 40 |
               (uint64_t)(attributes >> 12 & 0xf) << 52;
}

void boot_write_tables(const struct memory *memory, enum boot_protocol protocol)
{
        uint32_t code = protocol == BOOT_LINUX64 ? CODE64 : CODE32;
        uint64_t gdt[4] = { 0, 0, descriptor(code), descriptor(DATA32) };
        memory_write(memory, gpa(LAYOUT_GDT), gdt, sizeof(gdt));
        if (protocol != BOOT_LINUX64)
                return;
        /* The first 4 GiB, by 2 MiB pages. */
        uint64_t page[512] = { LAYOUT_PAGE_TABLES + 0x1003 };
        memory_write(memory, gpa(LAYOUT_PAGE_TABLES), page, sizeof(page));
        for (unsigned i = 0; i < 4; i++)
                page[i] = LAYOUT_PAGE_TABLES + 0x2003 + i * 0x1000ull;
        memory_write(memory, gpa(LAYOUT_PAGE_TABLES + 0x1000), page, sizeof(page));
        for (unsigned i = 0; i < 4; i++) {
                for (unsigned k = 0; k < 512; k++)
                        page[k] = ((uint64_t)i << 30 | (uint64_t)k << 21) | 0x83;
                memory_write(memory, gpa(LAYOUT_PAGE_TABLES + 0x2000 + i * 0x1000ull), page,
                             sizeof(page));
        }
}

void boot_entry_state(const struct boot_entry *entry, struct cpu_state *s)
{
        bool linux64 = entry->protocol == BOOT_LINUX64;
        s->rip = entry->rip;
        s->rflags = 2;
        for (unsigned i = 0; i < CPU_SEGS; i++)
                s->seg[i] = flat(SEL_DATA, DATA32);
        s->seg[CPU_CS] = flat(SEL_CODE, linux64 ? CODE64 : CODE32);
        s->tr = (struct cpu_segment){ .limit = 0x67, .attributes = TSS_BUSY };
        s->gdtr = (struct cpu_table){ .base = LAYOUT_GDT, .limit = 31 };
        s->idtr = (struct cpu_table){ 0 };
        s->cr0 = CR0_PE | CR0_ET | CR0_NE;
        if (linux64) {
                s->cr0 |= CR0_PG;
                s->cr3 = LAYOUT_PAGE_TABLES;
                s->cr4 = CR4_PAE;
                s->efer = EFER_LME | EFER_LMA;
                s->gpr[CPU_RSI] = entry->info;
        } else {
                s->gpr[CPU_RBX] = entry->info;
                s->gpr[CPU_RAX] = entry->protocol == BOOT_MULTIBOOT ? 0x2badb002 : 0;
        }
        s->activity = CPU_RUNNING;
}
