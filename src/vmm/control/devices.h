/* The control socket's requests about devices of a machine that runs. */
#pragma once

#include "http/server.h"
#include "vmm/vm.h"

void devices_list(struct http_request *request, struct vm *vm);
void devices_attach(struct http_request *request, struct vm *vm);
void devices_detach(struct http_request *request, struct vm *vm);
