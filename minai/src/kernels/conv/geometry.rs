//! What a convolution has to know about its shapes.

/// What a convolution has to know: x is (n, c_in, h, w), the weight (c_out, c_in / groups, kernel.0, kernel.1), and
/// y (n, c_out, [`out_size`](Geometry::out_size)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Images.
    pub n: usize,
    /// Channels of the input.
    pub c_in: usize,
    /// Rows and columns of the input.
    pub size: (usize, usize),
    /// Channels of the output.
    pub c_out: usize,
    /// Rows and columns of the kernel.
    pub kernel: (usize, usize),
    /// Input rows and columns between neighbouring outputs.
    pub stride: (usize, usize),
    /// Rows and columns of zeros on each side.
    pub padding: (usize, usize),
    /// Input rows and columns between neighbouring taps of the kernel.
    pub dilation: (usize, usize),
    /// Channels are split into so many groups, each with a convolution of its own.
    pub groups: usize,
}

impl Geometry {
    /// Rows and columns of the output: 1 + (size + 2 padding - dilation (kernel - 1) - 1) / stride; 0 if the kernel
    /// does not fit.
    pub fn out_size(&self) -> (usize, usize) {
        let out = |size: usize, kernel: usize, stride: usize, padding: usize, dilation: usize| {
            (size + 2 * padding).checked_sub(dilation * (kernel - 1) + 1).map_or(0, |room| room / stride + 1)
        };
        let at = |f: fn((usize, usize)) -> usize| {
            out(f(self.size), f(self.kernel), f(self.stride), f(self.padding), f(self.dilation))
        };
        (at(|pair| pair.0), at(|pair| pair.1))
    }

    pub(super) fn x_len(&self) -> usize {
        self.n * self.c_in * self.size.0 * self.size.1
    }

    pub(super) fn w_len(&self) -> usize {
        self.c_out * (self.c_in / self.groups) * self.taps()
    }

    pub(super) fn y_len(&self) -> usize {
        self.n * self.c_out * self.out_size().0 * self.out_size().1
    }

    pub(super) fn taps(&self) -> usize {
        self.kernel.0 * self.kernel.1
    }

    #[track_caller]
    pub(super) fn check(&self, x: usize, w: usize, y: usize) {
        let Geometry { c_in, c_out, kernel, stride, dilation, groups, .. } = *self;
        assert!(
            kernel.0 * kernel.1 * stride.0 * stride.1 * dilation.0 * dilation.1 > 0,
            "conv2d: a zero in {self:?}"
        );
        let fits = groups > 0 && c_in % groups == 0 && c_out % groups == 0;
        assert!(fits, "conv2d: {c_in} and {c_out} channels cannot be split into {groups} groups");
        let want = (self.x_len(), self.w_len(), self.y_len());
        assert!(
            (x, w, y) == want,
            "conv2d: slices of {x}, {w} and {y} elements, not {want:?} as {self:?} needs"
        );
    }
}
