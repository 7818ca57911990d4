! Densities of npflows in Fortran: npflows.embed(flow).handle in Python is the address of a density.
!
! All arrays are contiguous, values of a row side by side: x(dim, n).  Those that are written to must have the size that is
! stated, and must not overlap others.  Any number of threads may call at once.  A density is valid in the process that
! embedded it, and its forks, while it lives there.
module npflows
  use, intrinsic :: iso_c_binding
  use, intrinsic :: ieee_arithmetic, only: ieee_value, ieee_quiet_nan
  implicit none
  private
  public :: npflows_density, npflows_from_handle, npflows_log_prob, npflows_log_prob_and_grad, npflows_log_prob_rows, &
            npflows_sample

  integer(c_int64_t), parameter :: abi_version = 1, wrong_size = -1

  type, bind(c) :: npflows_density
    type(c_funptr) :: evaluate, sample
    integer(c_int64_t) :: dim, condition_dim, abi
  end type

  abstract interface
    function evaluate_function(x, n, dim, condition, condition_rows, condition_dim, grad, dcondition, log_prob, density) &
        bind(c) result(status)
      import :: c_int64_t, c_ptr
      type(c_ptr), value :: x, condition, grad, dcondition, log_prob, density
      integer(c_int64_t), value :: n, dim, condition_rows, condition_dim
      integer(c_int64_t) :: status
    end function

    function sample_function(z, n, dim, condition, condition_rows, condition_dim, x, density) bind(c) result(status)
      import :: c_int64_t, c_ptr
      type(c_ptr), value :: z, condition, x, density
      integer(c_int64_t), value :: n, dim, condition_rows, condition_dim
      integer(c_int64_t) :: status
    end function
  end interface

contains

  ! The density of a handle; a null pointer if this module is of another version of npflows.
  function npflows_from_handle(handle) result(density)
    integer(c_int64_t), intent(in) :: handle
    type(npflows_density), pointer :: density
    nullify (density)
    if (handle == 0) return
    call c_f_pointer(transfer(handle, c_null_ptr), density)
    if (density%abi /= abi_version) nullify (density)
  end function

  ! Rows x(dim, n) under one condition or n of them: log_prob(n), and the gradients that are given.  Status 0: all is well;
  ! 1: a log-density is -infinity or NaN; below 0: nothing was done, as something does not fit.
  function evaluate(density, x, log_prob, condition, grad, dcondition) result(status)
    type(npflows_density), intent(in), target :: density
    real(c_double), intent(in), target, contiguous :: x(:, :)
    real(c_double), intent(out), target, contiguous :: log_prob(:)
    real(c_double), intent(in), optional, target, contiguous :: condition(:, :)
    real(c_double), intent(out), optional, target, contiguous :: grad(:, :), dcondition(:, :)
    integer(c_int64_t) :: status, rows, width
    procedure(evaluate_function), pointer :: call_evaluate
    type(c_ptr) :: c, g, dc
    c = c_null_ptr; g = c_null_ptr; dc = c_null_ptr
    rows = 0; width = 0
    status = wrong_size
    if (size(log_prob) /= size(x, 2)) return
    if (present(grad)) then
      if (any(shape(grad) /= shape(x))) return
      g = c_loc(grad)
    end if
    if (present(condition)) then
      c = c_loc(condition); width = size(condition, 1); rows = size(condition, 2)
    end if
    if (present(dcondition)) dc = c_loc(dcondition)
    call c_f_procpointer(density%evaluate, call_evaluate)
    status = call_evaluate(c_loc(x), size(x, 2, c_int64_t), size(x, 1, c_int64_t), c, rows, width, g, dc, c_loc(log_prob), &
                           c_loc(density))
  end function

  ! The log-density of one row x(dim); NaN also where something does not fit.
  function npflows_log_prob(density, x, condition) result(log_prob)
    type(npflows_density), intent(in), target :: density
    real(c_double), intent(in), target, contiguous :: x(:)
    real(c_double), intent(in), optional, target, contiguous :: condition(:)
    real(c_double) :: log_prob
    real(c_double), pointer :: row(:, :), given(:, :)
    real(c_double), target :: out(1)
    integer(c_int64_t) :: status
    row(1:size(x), 1:1) => x
    out = ieee_value(0.0_c_double, ieee_quiet_nan)
    if (present(condition)) then
      given(1:size(condition), 1:1) => condition
      status = evaluate(density, row, out, given)
    else
      status = evaluate(density, row, out)
    end if
    log_prob = merge(ieee_value(0.0_c_double, ieee_quiet_nan), out(1), status < 0)
  end function

  ! The same, with the gradient grad(dim).
  function npflows_log_prob_and_grad(density, x, grad, condition) result(log_prob)
    type(npflows_density), intent(in), target :: density
    real(c_double), intent(in), target, contiguous :: x(:)
    real(c_double), intent(out), target, contiguous :: grad(:)
    real(c_double), intent(in), optional, target, contiguous :: condition(:)
    real(c_double) :: log_prob
    real(c_double), pointer :: row(:, :), slopes(:, :), given(:, :)
    real(c_double), target :: out(1)
    integer(c_int64_t) :: status
    row(1:size(x), 1:1) => x
    slopes(1:size(grad), 1:1) => grad
    if (present(condition)) then
      given(1:size(condition), 1:1) => condition
      status = evaluate(density, row, out, given, slopes)
    else
      status = evaluate(density, row, out, grad=slopes)
    end if
    log_prob = merge(ieee_value(0.0_c_double, ieee_quiet_nan), out(1), status < 0)
  end function

  ! The log-densities of rows x(dim, n), under one condition or n of them; see `evaluate` for the status.
  function npflows_log_prob_rows(density, x, log_prob, condition) result(status)
    type(npflows_density), intent(in), target :: density
    real(c_double), intent(in), target, contiguous :: x(:, :)
    real(c_double), intent(out), target, contiguous :: log_prob(:)
    real(c_double), intent(in), optional, target, contiguous :: condition(:, :)
    integer(c_int64_t) :: status
    status = evaluate(density, x, log_prob, condition)
  end function

  ! The sample x(dim) that z(dim), drawn from the base distribution, becomes.
  function npflows_sample(density, z, x, condition) result(status)
    type(npflows_density), intent(in), target :: density
    real(c_double), intent(in), target, contiguous :: z(:)
    real(c_double), intent(out), target, contiguous :: x(:)
    real(c_double), intent(in), optional, target, contiguous :: condition(:)
    integer(c_int64_t) :: status, width
    procedure(sample_function), pointer :: call_sample
    type(c_ptr) :: c
    c = c_null_ptr; width = 0
    status = wrong_size
    if (size(x) /= size(z)) return
    if (present(condition)) then
      c = c_loc(condition); width = size(condition)
    end if
    call c_f_procpointer(density%sample, call_sample)
    status = call_sample(c_loc(z), 1_c_int64_t, size(z, 1, c_int64_t), c, 1_c_int64_t, width, c_loc(x), c_loc(density))
  end function
end module
