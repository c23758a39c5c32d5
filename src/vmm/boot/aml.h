/* Writes ACPI Machine Language: the few terms our DSDT is made of.
 *
 * Packages (scopes, devices, methods, named buffers) are opened and closed; the
 * length in front is filled in on closing, always in its four-byte form.
 * Source: ACPI 6.5, chapter 20.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <stdbool.h>

#include "base/buf.h"

struct aml {
        struct buf bytes;
        size_t open[8]; /* where the lengths of open packages are */
        unsigned depth;
};

/* `name` is a path such as "\\_SB_" or "PCI0": segments of four characters. */
void aml_scope(struct aml *a, const char *name);
void aml_device(struct aml *a, const char *name);
void aml_method(struct aml *a, const char *name, unsigned arguments);
void aml_close(struct aml *a);

void aml_name_integer(struct aml *a, const char *text, uint64_t value);
void aml_name_string(struct aml *a, const char *text, const char *value);
/* A compressed EISA id such as "PNP0A08". */
void aml_name_eisa(struct aml *a, const char *text, const char *id);
/* Opens Name(name, Package(length)); elements follow, then aml_close(). */
void aml_name_package(struct aml *a, const char *text, unsigned length);
void aml_package(struct aml *a, unsigned length);
void aml_integer(struct aml *a, uint64_t value);
void aml_return_zero(struct aml *a);

/* OperationRegion(region, SystemIO, port, size) with a Field of double words, one per name. */
void aml_ports(struct aml *a, const char *region, uint16_t port, const char *const *words,
               unsigned length);
/* Store(value, text) and Store(text, Local0). */
void aml_store(struct aml *a, uint64_t value, const char *text);
void aml_load(struct aml *a, const char *text);
/* Opens If(And(Local0, bits)); aml_close(). */
void aml_if_any(struct aml *a, uint32_t bits);
void aml_notify(struct aml *a, const char *device, uint8_t value);
/* Calls a method without arguments: a name, or a path of three such as "\\_SB_PCI0NAME". */
void aml_call(struct aml *a, const char *text);

/* Opens Name(_CRS, ResourceTemplate); resources follow, then aml_resources_end(). */
void aml_resources(struct aml *a);
void aml_resource_io(struct aml *a, uint16_t base, uint8_t length);
void aml_resource_irq(struct aml *a, uint32_t gsi, bool level);
void aml_resource_memory(struct aml *a, uint32_t base, uint32_t size);
void aml_resource_bus(struct aml *a, uint16_t first, uint16_t last);
void aml_resource_window_io(struct aml *a, uint16_t first, uint16_t last);
void aml_resource_window_memory(struct aml *a, uint32_t first, uint32_t size);
void aml_resources_end(struct aml *a);
