/* bzImage by the 64-bit protocol: Documentation/arch/x86/boot.rst, "64-bit Boot
 * Protocol", and zero-page.rst. */
#include <string.h>

#include "base/auto.h"
#include "vmm/boot/loader.h"
#include "vmm/layout.h"

#define HEADER           0x1f1 /* setup header in file and in boot_params */
#define SETUP_SECTS      0x1f1
#define BOOT_FLAG        0x1fe
#define JUMP             0x200
#define MAGIC            0x202
#define VERSION          0x206
#define LOADER_TYPE      0x210
#define LOAD_FLAGS       0x211
#define CODE32_START     0x214
#define INITRD_ADDRESS   0x218
#define INITRD_SIZE      0x21c
#define CMDLINE          0x228
#define INITRD_MAX       0x22c
#define ALIGNMENT        0x230
#define XLOAD_FLAGS      0x236
#define CMDLINE_MAX      0x238
#define INIT_SIZE        0x260
#define E820_ENTRIES     0x1e8
#define E820_TABLE       0x2d0
#define ACPI_RSDP        0x070
#define PARAMS_SIZE      4096
#define LOADED_HIGH      0x01
#define XLF_KERNEL_64    0x01
#define LOADER_UNDEFINED 0xff
#define ENTRY_64         0x200
#define VERSION_MIN      0x020c

bool boot_is_linux(const struct boot_file *k)
{
        return k->size >= HEADER + 0x80 && memcmp(k->bytes + MAGIC, "HdrS", 4) == 0 &&
               boot_get(k->bytes + BOOT_FLAG, 2) == 0xaa55;
}

static int check(const struct boot_file *k, const struct memory *memory, size_t setup_size,
                 struct err *err)
{
        unsigned version = (unsigned)boot_get(k->bytes + VERSION, 2);
        if (version < VERSION_MIN)
                return err_plain(err, ENOEXEC, "boot protocol %u.%02u: at least 2.12 is needed",
                                 version >> 8, version & 0xff);
        if (!(boot_get(k->bytes + XLOAD_FLAGS, 2) & XLF_KERNEL_64) ||
            !(k->bytes[LOAD_FLAGS] & LOADED_HIGH))
                return err_plain(err, ENOEXEC, "not a 64-bit kernel");
        if (setup_size >= k->size)
                return err_plain(err, ENOEXEC, "truncated: %zu bytes, the setup part alone has %zu",
                                 k->size, setup_size);
        uint64_t init_size = boot_get(k->bytes + INIT_SIZE, 4);
        uint64_t need = init_size > k->size ? init_size : k->size;
        if (!memory_at(memory, gpa(LAYOUT_KERNEL), need))
                return err_plain(err, ENOMEM, "needs %llu MiB of memory, the machine has %llu",
                                 (unsigned long long)((need + LAYOUT_KERNEL) >> 20) + 1,
                                 (unsigned long long)(memory->size_bytes >> 20));
        return 0;
}

static void put(uint8_t *params, size_t at, uint64_t value, unsigned size)
{
        memcpy(params + at, &value, size);
}

static void fill_map(const struct memory *memory, uint8_t *params)
{
        struct boot_range ranges[BOOT_RANGES];
        unsigned n = boot_map(memory, ranges);
        params[E820_ENTRIES] = (uint8_t)n;
        for (unsigned i = 0; i < n; i++) {
                put(params, E820_TABLE + 20 * i, ranges[i].base, 8);
                put(params, E820_TABLE + 20 * i + 8, ranges[i].size, 8);
                put(params, E820_TABLE + 20 * i + 16, ranges[i].type, 4);
        }
}

static size_t setup_bytes(const struct boot_file *k)
{
        return (k->bytes[SETUP_SECTS] ? k->bytes[SETUP_SECTS] + 1u : 5u) * 512u;
}

int boot_check_linux(const struct memory *memory, const struct boot_image *image, struct err *err)
{
        const struct boot_file *k = &image->kernel;
        int r = check(k, memory, setup_bytes(k), err);
        if (r < 0)
                return r;
        size_t limit = boot_get(k->bytes + CMDLINE_MAX, 4);
        if (strlen(image->cmdline) > limit)
                return err_plain(err, E2BIG, "command line of %zu bytes: this kernel takes %zu",
                                 strlen(image->cmdline), limit);
        return 0;
}

int boot_linux(const struct memory *memory, const struct boot_image *image, struct boot_entry *ret,
               struct err *err)
{
        const struct boot_file *k = &image->kernel;
        size_t setup_size = setup_bytes(k);
        int r = boot_check_linux(memory, image, err);
        if (r < 0)
                return r;
        uint8_t params[PARAMS_SIZE] = { 0 };
        /* The header ends where its own jump goes to. */
        size_t header_end = JUMP + 2 + k->bytes[JUMP + 1];
        if (header_end > k->size || header_end > E820_TABLE)
                header_end = E820_TABLE < k->size ? E820_TABLE : k->size;
        memcpy(params + HEADER, k->bytes + HEADER, header_end - HEADER);
        uint64_t init_size = boot_get(k->bytes + INIT_SIZE, 4), initrd = 0;
        uint64_t kernel_end = LAYOUT_KERNEL + (init_size > k->size ? init_size : k->size);
        r = boot_place_initrd(memory, image, kernel_end, boot_get(k->bytes + INITRD_MAX, 4) + 1ull,
                              &initrd, err);
        if (r < 0)
                return r;
        params[LOADER_TYPE] = LOADER_UNDEFINED;
        put(params, CODE32_START, LAYOUT_KERNEL, 4);
        put(params, INITRD_ADDRESS, initrd, 4);
        put(params, INITRD_SIZE, image->initrd.size, 4);
        put(params, CMDLINE, LAYOUT_CMDLINE, 4);
        put(params, ACPI_RSDP, LAYOUT_ACPI, 8);
        fill_map(memory, params);
        memory_write(memory, gpa(LAYOUT_KERNEL), k->bytes + setup_size, k->size - setup_size);
        memory_write(memory, gpa(LAYOUT_BOOT_PARAMS), params, sizeof(params));
        boot_place_cmdline(memory, image);
        boot_write_tables(memory, BOOT_LINUX64);
        *ret = (struct boot_entry){ BOOT_LINUX64, LAYOUT_KERNEL + ENTRY_64, LAYOUT_BOOT_PARAMS };
        return 0;
}
